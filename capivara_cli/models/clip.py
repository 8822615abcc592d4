"""OpenCLIP models: load one, encode with it, save one that needs nothing but its folder."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError, first_line, nearest
from capivara_cli.models import hub
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

    from capivara_cli.models.tokens import Tokens

DEFAULT_MODEL = "xlm-roberta-base-ViT-B-32"
DEFAULT_PRETRAINED = "laion5b_s13b_b90k"
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

IMAGE_BATCH = {"cpu": 64, "cuda": 512, "mps": 128}
TEXT_BATCH = {"cpu": 256, "cuda": 2048, "mps": 512}


@dataclass(frozen=True)
class ModelName:
    """A model as open_clip names it.

    Attributes:
        name: an architecture, `hf-hub:org/repo` or `local-dir:path`.
        pretrained: the tag of an architecture's weights; None with a schema.
    """

    name: str
    pretrained: str | None = None

    @classmethod
    def parse(cls, name: str | None, pretrained: str | None = None) -> ModelName:
        """`ARCHITECTURE`, `ARCHITECTURE:TAG`, `hf-hub:…` or `local-dir:…`; None is the recipe's base model.

        Raises CapivaraError for a tag of a model that is no architecture: it has its own weights.
        """
        name = name or DEFAULT_MODEL
        if name.startswith(("hf-hub:", "local-dir:")):
            if pretrained:
                raise CapivaraError(
                    f"--pretrained {pretrained}: {name} has its own weights", "a tag belongs to an architecture's name"
                )
            return cls(name)
        name, _, tag = name.partition(":")
        tag = pretrained or tag
        return cls(name, tag or (DEFAULT_PRETRAINED if name == DEFAULT_MODEL else None))

    @property
    def folder(self) -> Path | None:
        """The folder of a `local-dir:` model."""
        return Path(self.name.removeprefix("local-dir:")) if self.name.startswith("local-dir:") else None

    def __str__(self) -> str:
        return f"{self.name}:{self.pretrained}" if self.pretrained else self.name


@dataclass
class Clip:
    """A loaded model with all that is needed to use it.

    Attributes:
        model: open_clip's own module (Any, because torch gives the parts of a module no types), in eval mode. It
            stays there in training too: without dropout a step does not depend on how it is cut into
            micro-batches, and LoRA's own dropout is 0 in the recipe.
        tokenizer: open_clip's tokenizer: list of texts -> (N, context length) int64.
        preprocess: PIL image -> (3, H, W) float32, as open_clip evaluates.
        runtime: where it is, with the precision settled.
    """

    name: ModelName
    model: Any
    tokenizer: Any
    preprocess: Any
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    runtime: Runtime

    @property
    def has_hf_text(self) -> bool:
        """Whether the text tower is a Hugging Face module, which masks padding: such texts can be trimmed."""
        return "hf_model_name" in self.model_cfg["text_cfg"]

    @property
    def pad_id(self) -> int | None:
        """Token that the text tower masks; None when it wants its texts at full length."""
        return int(self.model.text.config.pad_token_id) if self.has_hf_text else None

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) float32 -> (B, D) float32 on the device, normalised."""
        with self.runtime.autocast(), self.runtime.attention():
            features = self.model.encode_image(pixels.to(self.runtime.device, non_blocking=True))
        return _normalise(features)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D) float32 on the device, normalised."""
        with self.runtime.autocast(), self.runtime.attention():
            features = self.model.encode_text(tokens.to(self.runtime.device, non_blocking=True))
        return _normalise(features)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """N texts -> (N, D) float32 on the CPU, normalised. Each distinct text is encoded once."""
        from capivara_cli.models.tokens import tokenise

        distinct = list(dict.fromkeys(texts))
        features = self.encode_rows(tokenise(self, distinct))  # (distinct, D)
        row = {text: i for i, text in enumerate(distinct)}
        return features[[row[text] for text in texts]]

    def encode_rows(self, tokens: Tokens) -> Tensor:
        """N tokenised texts -> (N, D) float32 on the CPU, normalised; the longest together and first."""
        import numpy as np
        import torch

        order = tokens.by_length(np.arange(len(tokens)))
        run = torch.inference_mode()(lambda part: self.encode_tokens(tokens.batch(order[part])).cpu())
        batches = self.runtime.batches(run, len(order), self._size(TEXT_BATCH))
        features = torch.cat([features for _, features in batches])  # (N, D), in `order`
        result = torch.empty_like(features)
        result[torch.from_numpy(order)] = features
        return result

    def text_size(self) -> tuple[int, int]:
        """Layers and width of the text tower."""
        return _text_size(self.model)

    def image_size(self) -> tuple[int, int, int]:
        """Tokens, layers and width of the image tower; of a tower that is no open_clip ViT, a ViT-B/32's."""
        tower = self.model.visual
        if not hasattr(tower, "grid_size") or not hasattr(tower, "transformer"):
            return 50, 12, 768
        return tower.grid_size[0] * tower.grid_size[1] + 1, tower.transformer.layers, tower.transformer.width

    def image_batch_size(self) -> int:
        """Images to encode at once."""
        return self._size(IMAGE_BATCH)

    def _size(self, sizes: dict[str, int]) -> int:
        return sizes[self.runtime.device.split(":")[0]]

    def image_tower_fingerprint(self) -> str:
        """Changes with the image tower's weights, its preprocessing or the precision it runs in."""
        weights = artifacts.fingerprint_tensors(self.model.visual.state_dict())
        return artifacts.fingerprint(weights, self.preprocess_cfg, self.runtime.precision)


def _normalise(features: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)


def load(name: ModelName, runtime: Runtime, *, weights: bool = True) -> Clip:
    """Load a model; with `weights=False`, its architecture with random weights from the runtime's seed.

    Raises CapivaraError when open_clip does not know the name, when the weights cannot be had, or when a
    folder is not a model.
    """
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    _check_name(name, weights)
    if name.folder is None:
        _check_hub(name, weights)
    source = _resolve(name)
    try:
        torch.manual_seed(runtime.seed)
        overrides = _text_overrides(name)
        model = open_clip.create_model(
            source,
            pretrained=name.pretrained if weights else None,
            load_weights=weights,
            require_pretrained=weights,
            pretrained_text=False,
            **overrides,
        )
        tokenizer = open_clip.get_tokenizer(source)
        model_cfg = open_clip.get_model_config(source)
    except CapivaraError:
        raise
    except Exception as error:  # a broken folder makes torch, safetensors and tokenizers raise nearly anything
        raise _load_failure(name, error) from error
    model.eval().requires_grad_(False)
    preprocess_cfg = dict(model.visual.preprocess_cfg)
    clip = Clip(
        name=name,
        model=model,
        tokenizer=tokenizer,
        preprocess=image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False),
        model_cfg={**model_cfg, **copy.deepcopy(overrides)},
        preprocess_cfg=preprocess_cfg,
        runtime=runtime.for_width(_text_size(model)[1]),
    )
    model.to(runtime.device)
    return clip


def _check_name(name: ModelName, weights: bool) -> None:
    """Catch at once what open_clip would say later or only log."""
    import open_clip

    if name.folder is not None:
        if not (name.folder / CONFIG).is_file():
            raise CapivaraError(
                f"{name}: no {CONFIG} in that folder", "local-dir: takes a folder written by merge-lora"
            )
        if weights and not any(name.folder.glob("open_clip_*.safetensors")) and not any(name.folder.glob("*.bin")):
            raise CapivaraError(
                f"{name}: no weights ({WEIGHTS}) in that folder", "--from-scratch starts from random ones"
            )
        return
    if name.name.startswith("hf-hub:"):
        return
    known = open_clip.list_models()
    if name.name not in known:
        hint = f"local-dir:{name.name}" if Path(name.name).is_dir() else "see open_clip.list_models(), or hf-hub:…"
        raise CapivaraError(f"open_clip knows no model {name.name}{nearest(name.name, known)}", hint)
    tags = open_clip.list_pretrained_tags_by_model(name.name)
    if weights and name.pretrained not in tags and not Path(name.pretrained or "").is_file():
        asked = f"has no weights {name.pretrained}" if name.pretrained else "needs the tag of its weights"
        raise CapivaraError(f"{name.name} {asked} (there are: {', '.join(tags) or 'none'})", "--pretrained TAG")


def _resolve(name: ModelName) -> str:
    return f"local-dir:{name.folder.absolute()}" if name.folder is not None else name.name


def _text_overrides(name: ModelName) -> dict[str, Any]:
    """Let a folder's text tower come from the folder, wherever it now is, and not from where it was written."""
    if name.folder is None:
        return {}
    text_cfg = artifacts.read_json(name.folder / CONFIG)["model_cfg"]["text_cfg"]
    if "hf_model_name" not in text_cfg or not (name.folder / "config.json").is_file():
        return {}
    return {"text_cfg": {**text_cfg, "hf_model_name": str(name.folder.absolute()), "hf_model_pretrained": False}}


def _check_hub(name: ModelName, weights: bool) -> None:
    """Say at once that the weights, or the text tower's configuration, cannot be had."""
    import open_clip

    if name.name.startswith("hf-hub:"):
        repos = [name.name.removeprefix("hf-hub:")]
    else:
        text_cfg = (open_clip.get_model_config(name.name) or {}).get("text_cfg", {})
        tag = open_clip.get_pretrained_cfg(name.name, name.pretrained) if weights and name.pretrained else {}
        repos = [tag.get("hf_hub", ""), text_cfg.get("hf_model_name", "")]
    for repo in filter(None, repos):
        if reason := hub.why_unreachable(repo):
            raise CapivaraError(
                f"{name}: {repo.strip('/')} is not on this machine, and the hub cannot be reached: {reason}",
                "run once with network, or copy the model's folder here and use --model local-dir:FOLDER",
            )


def _load_failure(name: ModelName, error: Exception) -> CapivaraError:
    return CapivaraError(f"{name} cannot be loaded: {first_line(error)}")


def _text_size(model: Any) -> tuple[int, int]:
    """Layers and width of the text tower, as Hugging Face's and open_clip's own towers name them."""
    tower = getattr(model, "text", model)
    config = getattr(tower, "config", None)
    if config is not None:
        return int(config.num_hidden_layers), int(config.hidden_size)
    return int(tower.transformer.layers), int(tower.transformer.width)


def save(clip: Clip, folder: Path, *, state: dict[str, Tensor] | None = None, card: str = "") -> None:
    """Write a self-contained OpenCLIP folder: weights, configurations, tokenizer, card, licence of the base.

    open_clip asks transformers for the text tower's configuration by `hf_model_name`, so that name is the
    folder itself. Our own `load` corrects it when the folder was moved; docs/models.md says what plain
    open_clip wants then.

    Args:
        folder: where to; an existing one is replaced as a whole.
        state: the weights, when not those in the model (merged, scaled or of another dtype).
        card: the README.md.
    """
    text_cfg = dict(clip.model_cfg["text_cfg"])
    with artifacts.writing(folder) as temporary:
        temporary.mkdir()
        if clip.has_hf_text:
            clip.model.text.config.to_json_file(temporary / "config.json")
            text_cfg |= {"hf_model_name": str(folder.absolute()), "hf_tokenizer_name": str(folder.absolute())}
            text_cfg["hf_model_pretrained"] = False
        if hasattr(clip.tokenizer, "save_pretrained"):
            clip.tokenizer.save_pretrained(temporary)
        preprocess = {key: clip.preprocess_cfg[key] for key in ("mean", "std", "interpolation", "resize_mode")}
        config = {"model_cfg": {**clip.model_cfg, "text_cfg": text_cfg}, "preprocess_cfg": preprocess}
        artifacts.write_json(temporary / CONFIG, config)
        artifacts.save_tensors(temporary / WEIGHTS, state or clip.model.state_dict(), {"format": "pt"})
        artifacts.write_text(temporary / "README.md", card)
        if clip.name.folder:
            for licence in clip.name.folder.glob("LICEN[CS]E*"):
                shutil.copy(licence, temporary)


def relocate(folder: Path, name: str | None = None) -> None:
    """Tell a folder's configuration where it is, or to use another name, for plain open_clip's sake."""
    config = artifacts.read_json(folder / CONFIG)
    name = name or str(folder.absolute())
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": name, "hf_tokenizer_name": name}
    artifacts.write_json(folder / CONFIG, config)


# open_clip logs on the root logger, which would print among our own lines.
logging.getLogger().addHandler(logging.NullHandler())
