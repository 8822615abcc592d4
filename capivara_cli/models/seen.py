"""What a model was trained on, as hashes: they tell whether test data are among it, and do not leak the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from capivara_cli import artifacts, console
from capivara_cli.data import image_records, images
from capivara_cli.data.captions import REJECTED
from capivara_cli.data.images import ImageRef, ImageRejected
from capivara_cli.errors import CapivaraError

if TYPE_CHECKING:
    import numpy as np

FILE = "seen.safetensors"
READERS = 8  # threads that read images
UNKNOWN = bytes(16)  # content of an image whose embedding an older version has cached


class Overlap(NamedTuple):
    """How much of some data was trained on.

    Attributes:
        images: number of shared images, of `of_images`.
        captions: share of the distinct captions that are shared, 0 to 1.
    """

    images: int
    of_images: int
    captions: float

    def warn(self, what: str, source: str) -> None:
        """Warn if anything is shared.

        Args:
            what: the data are: `test`.
            source: what the model was trained on.
        """
        if self.images or self.captions:
            console.warn(
                f"{self.images:,} of {self.of_images:,} {what} images and {self.captions:.1%} of"
                f" their captions were trained on too: they are in {source}"
            )

    def content(self) -> dict[str, Any]:
        """Return what a result file says of it."""
        return {"images": self.images, "captions": round(self.captions, 6)}


@dataclass(frozen=True)
class Seen:
    """Images and captions, each as a hash of 8 bytes.

    Attributes:
        paths: (N,) int64, of the images' absolute paths.
        contents: (N,) int64, of the images' bytes; 0 where not known.
        captions: (M,) int64, of the distinct captions.
    """

    paths: np.ndarray
    contents: np.ndarray
    captions: np.ndarray

    @classmethod
    def of(cls, refs: Iterable[ImageRef], contents: np.ndarray, texts: Iterable[str]) -> Seen:
        """Hash images and captions.

        Args:
            contents: (N, 16) uint8, digests of the images.
        """
        import numpy as np

        paths = np.array([_hash(str(ref)) for ref in refs], np.int64)
        captions = np.array([_hash(text) for text in dict.fromkeys(texts)], np.int64)
        return cls(paths, np.ascontiguousarray(contents[:, :8]).view(np.int64).ravel(), captions)

    def save(self, folder: Path) -> None:
        """Write the file into a run folder."""
        import torch

        artifacts.save_tensors(folder / FILE, {name: torch.from_numpy(array) for name, array in vars(self).items()})

    def overlap(self, other: Seen) -> Overlap:
        """Return how much of the other data is among these."""
        import numpy as np

        same_content = np.isin(other.contents, self.contents) & (other.contents != 0)
        images = int((np.isin(other.paths, self.paths) | same_content).sum())
        shared = np.isin(other.captions, self.captions)
        return Overlap(images, len(other.paths), float(shared.mean()) if len(shared) else 0.0)


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def trained_on(source: str) -> Seen:
    """Return what `--trained-on` names: what a run has learnt from, or records with their images and captions.

    Raises CapivaraError when it is neither, and for a run of an older version, which does not say.
    """
    folder = Path(source)
    if (folder / FILE).is_file():
        return _load(folder / FILE)
    if (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file():
        raise CapivaraError(f"{source} is a run without {FILE}", "--trained-on DATA names the data of the run")
    rows = image_records.read_all([source])
    texts = (caption["text"] for row in rows for caption in row.captions if REJECTED not in caption)
    refs = [row.image for row in rows]
    return Seen.of(refs, digests(refs), texts)


def file_of(model: Path) -> Path | None:
    """Return the file that says what a run, its adapter or a merged model was trained on; None where none does."""
    for file in (model / FILE, model.parent / FILE):  # an adapter and the model of `--full` lie in their run
        if file.is_file() and not file.is_symlink():  # a link could publish a private file
            return file
    return None


def of_model(model: Path) -> Seen | None:
    """Return what a run, its adapter or a merged model was trained on; None where nothing says so."""
    file = file_of(model)
    return _load(file) if file is not None else None


def digests(refs: Sequence[ImageRef]) -> np.ndarray:
    """Read images, and return the digests of their content (N, 16) uint8; zeros for what cannot be read."""
    import numpy as np

    def digest(ref: ImageRef) -> bytes:
        try:
            return images.digest(ref)
        except ImageRejected:
            return UNKNOWN

    with ThreadPoolExecutor(READERS) as readers:
        content = b"".join(readers.map(digest, refs))
    return np.frombuffer(content, np.uint8).reshape(-1, 16)


def _load(path: Path) -> Seen:
    tensors = {name: tensor.numpy() for name, tensor in artifacts.load_tensors(path).items()}
    names = Seen.__dataclass_fields__.keys()
    if tensors.keys() != names or any(array.dtype != "int64" or array.ndim != 1 for array in tensors.values()):
        raise CapivaraError(f"{path} does not hold {', '.join(names)}", "--trained-on DATA names the data of the run")
    return Seen(**tensors)
