"""Load an OpenCLIP model, and save one as a folder that needs no other file."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from capivara_cli import artifacts, console, folders
from capivara_cli.errors import CapivaraError, nearest
from capivara_cli.folders import FolderKind
from capivara_cli.models import foreign, hub, lora, model_config
from capivara_cli.models.clip import Clip
from capivara_cli.models.model_config import CONFIG
from capivara_cli.models.spec import ModelSpec
from capivara_cli.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "open_clip_model.safetensors"
FILES = (
    r"open_clip_config\.json|open_clip_model\.safetensors|README\.md|config\.json|LICEN[CS]E[^/]*"
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
    r"|spiece\.model|sentencepiece\.bpe\.model|chat_template\.jinja|seen\.safetensors"
)
"""Pattern of what `save` writes. A tokenizer may have other files too: these are named in the folder's marker."""
MERGED = "the whole model, adapter merged."  # a merged model's card says this; any OpenCLIP folder has the same files
MODEL_FOLDER = FolderKind("merged model", FILES, required=(CONFIG, WEIGHTS, "README.md"), card=MERGED)

# open_clip logs on the root logger. Without a handler there, logging would print those lines between ours.
logging.getLogger().addHandler(logging.NullHandler())


class Files(NamedTuple):
    """What a model's folder or repository consists of: its configuration, and the file of its weights, if wanted."""

    config: dict[str, Any]
    weights: list[Path]


def load(
    spec: ModelSpec, runtime: Runtime, *, weights: bool = True, role: str | None = None, verify_cache: bool = False
) -> Clip:
    """Load a model and put its adapter on it.

    Args:
        weights: False gives the architecture random weights, drawn from the runtime's seed.
        role: `model` or `baseline`, to tell the user what was loaded and where it runs; None prints nothing.
        verify_cache: see `Clip`.

    Raises:
        CapivaraError: open_clip does not know the name, the weights are not available, the folder is not a model,
            the adapter does not fit, or no model is the one that it was trained on.
    """
    clip = _load_noted(spec, runtime) if weights and spec.noted is not None else _load_base(spec, runtime, weights)
    clip.spec = replace(clip.spec, adapter=None)  # none yet
    clip.verify_cache = verify_cache
    if spec.adapter is not None:
        lora.load(clip, spec.adapter)
    if role is not None:
        console.say(f"{role}: {clip.spec} on {clip.runtime.describe()}")
    return clip


def _load_noted(spec: ModelSpec, runtime: Runtime) -> Clip:
    """Load the model that a run has noted as its base: of several places, the one whose weights are the run's."""
    assert spec.noted is not None
    for candidate in spec.noted.existing:
        clip = _load_base(candidate, runtime, weights=True)
        if not clip.has_other_weights(spec.noted.weights):
            clip.spec = replace(candidate, noted=spec.noted)
            return clip
    raise spec.noted.error()


def _load_base(spec: ModelSpec, runtime: Runtime, weights: bool) -> Clip:
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    _check(spec, weights)
    source = spec.name if spec.folder is None else f"local-dir:{spec.folder.absolute()}"
    with foreign.loading(spec):
        files = _files(spec, weights)
        overrides = _text_overrides(spec, files)
        # CLIP's weights include the text tower's: do not download that tower's own.
        build = partial(open_clip.create_model, source, pretrained_text=False, **overrides)
        if files is not None:
            empty = partial(build, load_weights=False, device="meta")
            foreign.check_size(empty, spec, files.weights, same_shapes=True)
        torch.manual_seed(runtime.seed)
        pretrained = spec.pretrained if weights else None
        model = build(pretrained=pretrained, load_weights=weights, require_pretrained=weights)
        model_cfg = open_clip.get_model_config(source)
        # A file may ask for its own code in `tokenizer_kwargs`; what is passed here wins.
        no_code = {"trust_remote_code": False} if model_cfg["text_cfg"].get("hf_tokenizer_name") else {}
        tokenizer = open_clip.get_tokenizer(source, **no_code)
        preprocess_cfg = dict(model.visual.preprocess_cfg)
        preprocess = image_transform_v2(PreprocessCfg(**preprocess_cfg), is_train=False)
    foreign.check_finite(model.state_dict(), spec)
    model.eval().requires_grad_(False)
    clip = Clip(
        spec=spec,
        model=model,
        tokenizer=tokenizer,
        preprocess=preprocess,
        model_cfg=model_cfg,
        preprocess_cfg=preprocess_cfg,
        runtime=runtime,
    )
    _check_context(clip)
    clip.runtime = runtime.for_width(clip.text_size()[1])
    model.to(runtime.device)
    return clip


def _check(spec: ModelSpec, weights: bool) -> None:
    """Raise at once for what open_clip would only log, or report after minutes of retries."""
    if spec.folder is not None:
        _check_folder(spec, spec.folder, weights)
        return
    if spec.name.startswith("hf-hub:"):
        repos = [spec.name.removeprefix("hf-hub:")]
    else:
        repos = _check_architecture(spec, weights)
    for repo in filter(None, repos):
        if reason := hub.why_unreachable(repo):
            raise CapivaraError(
                f"{spec}: {repo.strip('/')} is not on this machine, and the hub cannot be reached: {reason}",
                "run once with network, or copy the model's folder here and use --model local-dir:FOLDER",
            )


def _check_folder(spec: ModelSpec, folder: Path, weights: bool) -> None:
    if not (folder / CONFIG).is_file():
        raise CapivaraError(f"{spec}: no {CONFIG} in that folder", "local-dir: takes a folder written by merge-lora")
    foreign.check_files(folder)
    if weights and not _weights(folder):
        raise CapivaraError(
            f"{spec}: no weights ({WEIGHTS}) in that folder", "--from-scratch starts from random weights"
        )


def _check_architecture(spec: ModelSpec, weights: bool) -> list[str]:
    """Check the name and the tag, and return the hub's repositories that loading needs ("" where it needs none)."""
    import open_clip

    names = open_clip.list_models()
    if spec.name not in names:
        hint = f"local-dir:{spec.name}" if Path(spec.name).is_dir() else "see open_clip.list_models(), or hf-hub:…"
        raise CapivaraError(f"open_clip knows no model {spec.name}{nearest(spec.name, names)}", hint)
    if Path(spec.pretrained or "").is_file():
        foreign.check_file(Path(spec.pretrained or ""))
    tags = open_clip.list_pretrained_tags_by_model(spec.name)
    if weights and spec.pretrained not in tags and not Path(spec.pretrained or "").is_file():
        problem = f"has no weights {spec.pretrained}" if spec.pretrained else "needs the tag of its weights"
        raise CapivaraError(f"{spec.name} {problem} (tags: {', '.join(tags) or 'none'})", "--pretrained TAG")
    text_cfg = (open_clip.get_model_config(spec.name) or {}).get("text_cfg", {})
    weights_cfg = open_clip.get_pretrained_cfg(spec.name, spec.pretrained) if weights and spec.pretrained else {}
    return [weights_cfg.get("hf_hub", ""), text_cfg.get("hf_model_name", "")]


def _files(spec: ModelSpec, weights: bool) -> Files | None:
    """Return the files of a folder or a repository, which may say anything; None for an architecture of open_clip."""
    from open_clip.pretrained import download_pretrained_from_hf

    if spec.folder is not None:
        return Files(model_config.read(spec.folder / CONFIG), _weights(spec.folder) if weights else [])
    if not spec.name.startswith("hf-hub:"):
        return None
    repo = spec.name.removeprefix("hf-hub:")
    config = model_config.read(Path(download_pretrained_from_hf(repo, CONFIG)))
    return Files(config, [Path(download_pretrained_from_hf(repo))] if weights else [])


def _weights(folder: Path) -> list[Path]:
    """Return the file that open_clip takes a folder's weights from; empty if there is none, or an old kind."""
    from open_clip.factory import _find_checkpoint_in_dir

    path = Path(_find_checkpoint_in_dir(folder) or "")
    return [path] if path.suffix in (".safetensors", ".bin") else []


def _text_overrides(spec: ModelSpec, files: Files | None) -> dict[str, Any]:
    """Make a folder's text tower load from the folder: its `hf_model_name` is for the hub (see `save`)."""
    text_cfg = files.config["model_cfg"]["text_cfg"] if files is not None else {}
    if "hf_model_name" not in text_cfg:
        return {}
    is_complete = spec.folder is not None and (spec.folder / "config.json").is_file()
    name = str(spec.folder.absolute()) if spec.folder and is_complete else text_cfg["hf_model_name"]
    foreign.load_config(name)  # only to check it
    return {"text_cfg": {**text_cfg, "hf_model_name": name, "hf_model_pretrained": False}}


def _check_context(clip: Clip) -> None:
    """Raise CapivaraError if texts are cut at more tokens than the text tower has positions for."""
    tower = getattr(clip.model, "text", clip.model)
    positions = tower.context_length or clip.tokenizer.context_length  # 0: no limit, as T5 has none
    if clip.has_hf_text:
        table = getattr(getattr(tower.transformer, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        positions -= 0 if padding is None else padding + 1  # RoBERTa counts from there
    if positions < clip.tokenizer.context_length:
        raise CapivaraError(
            f"{clip.spec}: its context_length is {clip.tokenizer.context_length} tokens, but its text tower has only"
            f" {positions} positions"
        )


def save(
    clip: Clip,
    folder: Path,
    *,
    state: dict[str, Tensor] | None = None,
    card: str = "",
    seen: Path | None = None,
    hub_name: str | None = None,
) -> None:
    """Write a self-contained OpenCLIP folder: weights, configurations, tokenizer, card, and the base's licence.

    No path of this machine is in it. open_clip loads the configuration of the text tower with transformers, by the
    name `hf_model_name`; `load` and the card's lines for plain open_clip tell it to take the folder's own instead.

    Args:
        folder: replaced as a whole if it exists.
        state: weights to write instead of the model's (merged, scaled or of another dtype).
        card: text of README.md.
        seen: file that says what the weights were trained on, to copy; see `models.seen`.
        hub_name: `org/name` of the repository that the folder will be, which then loads in open_clip by that name.
    """
    text_cfg = dict(clip.model_cfg["text_cfg"])
    for name in ("hf_model_name", "hf_tokenizer_name"):
        if text_cfg.get(name):
            text_cfg[name] = hub_name or (text_cfg[name] if hub.is_name(text_cfg[name]) else folder.name)
    with artifacts.writing(folder) as temporary:
        temporary.mkdir()
        if clip.has_hf_text:
            clip.model.text.config.to_json_file(temporary / "config.json")
            text_cfg["hf_model_pretrained"] = False  # the weights are those of the whole model
        if hasattr(clip.tokenizer, "save_pretrained"):
            clip.tokenizer.save_pretrained(temporary)
        preprocess = {key: clip.preprocess_cfg[key] for key in ("mean", "std", "interpolation", "resize_mode")}
        config = {"model_cfg": {**clip.model_cfg, "text_cfg": text_cfg}, "preprocess_cfg": preprocess}
        artifacts.write_json(temporary / CONFIG, config)
        artifacts.save_tensors(temporary / WEIGHTS, state or clip.model.state_dict(), {"format": "pt"})
        artifacts.write_text(temporary / "README.md", card)
        if clip.spec.folder:
            for licence in clip.spec.folder.glob("LICEN[CS]E*"):
                if licence.is_file() and not licence.is_symlink():  # a link could publish a private file
                    shutil.copy(licence, temporary)
        if seen is not None:
            shutil.copy(seen, temporary)
        folders.mark(temporary, MODEL_FOLDER)
