"""From images to embeddings: the views of an image, and their encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from capivara_cli.data import images
from capivara_cli.data.images import ImageRef
from capivara_cli.models.clip import Clip

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


def encode_views(clip: Clip, pixels: Tensor) -> Tensor:
    """Encode images (B, views, 3, H, W) float32 -> (B, views, D) float32 on the CPU, normalised."""
    import torch

    flat = pixels.flatten(0, 1)  # (B * views, 3, H, W)
    run = torch.inference_mode()(lambda part: clip.encode_pixels(flat[part]).cpu())
    # All at once, and in halves if memory runs out: the caller has cut the batch to a size that mostly fits.
    features = torch.cat([part for _, part in clip.runtime.batches(run, len(flat), len(flat))])
    return features.unflatten(0, pixels.shape[:2])


class Views:
    """Prepare the views of an image. View 0 is the plain image; the others are augmented, each the same every time."""

    def __init__(self, clip: Clip, views: int) -> None:
        self.plain = clip.preprocess
        self.augmented = augmentation(clip) if views > 1 else None
        self.views = views

    def __call__(self, ref: ImageRef) -> Tensor:
        """Return all views, (views, 3, H, W). Raises ImageRejected."""
        import torch

        image = images.load(ref)
        return torch.stack([self._view(image, ref, view) for view in range(self.views)])

    def one(self, ref: ImageRef, view: int) -> Tensor:
        """Return a single view, (3, H, W). Raises ImageRejected."""
        return self._view(images.load(ref), ref, view)

    def _view(self, image: Image, ref: ImageRef, view: int) -> Tensor:
        import torch

        if view == 0 or self.augmented is None:
            return cast("Tensor", self.plain(image))
        # Seeded by the image and the view, so that a view does not depend on the order or the process it is made in.
        with torch.random.fork_rng(devices=[]):
            # 7 bytes of the identity, so that the seed fits in 64 bits also with `view` added.
            torch.manual_seed(int.from_bytes(images.identity(ref)[:7], "little") + view)
            return cast("Tensor", self.augmented(image))


def augmentation(clip: Clip) -> torch.nn.Module:
    """Return the recipe's augmentation: resize to 250, random resized crop to 224 at scale 0.9-1, AugMix of severity 2.

    Source: arXiv 2310.13683, published configuration. The sizes scale with the model's image size.
    """
    import torch
    from torchvision.transforms import InterpolationMode, v2

    size = clip.preprocess_cfg["size"]
    side = int(size[0] if isinstance(size, list | tuple) else size)
    bicubic = InterpolationMode.BICUBIC
    return v2.Compose(
        [
            v2.Resize(round(side * 250 / 224), interpolation=bicubic),
            v2.RandomResizedCrop(side, scale=(0.9, 1.0), interpolation=bicubic),
            v2.AugMix(severity=2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(clip.preprocess_cfg["mean"], clip.preprocess_cfg["std"]),
        ]
    )
