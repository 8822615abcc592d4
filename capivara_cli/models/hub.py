"""The Hugging Face hub: check briefly that it can be reached, before a load waits for it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from capivara_cli import artifacts
from capivara_cli.errors import CapivaraError, first_line
from capivara_cli.models import foreign

SECONDS = 10  # to wait for an answer; the hub's own client retries for a minute


def is_name(text: str) -> bool:
    """Whether the hub allows this name for a repository: `name` or `org/name`, and not a path."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # not in its list of exports

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def why_unreachable(repo: str) -> str | None:
    """Return why a repository is not available; None if it is in the local cache or the hub answers.

    Args:
        repo: `org/name`.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo.strip("/"), repo_type="model")
    return None if any(folder.glob("snapshots/*")) else why_no_answer()


def card_of(repo: str) -> Path | None:
    """Return a repository's model card, from the local cache or the hub; None if it has none or the hub is away."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repo, "README.md")
    if isinstance(cached, str):
        return Path(cached)
    if why_no_answer() is not None:  # asked first, because the hub's own client retries for a minute
        return None
    with suppress(Exception):  # whatever the client raises: a model without a card is no problem
        return Path(hf_hub_download(repo, "README.md"))
    return None


def why_no_answer() -> str | None:
    """Return why the hub does not answer; None if it does."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # the hub's library changed its HTTP client once, and with it the exceptions
        return first_line(error)
    return None


def source_of(name: str) -> str:
    """Return where to load a transformers model from, its folder or repository, after checking that it is available.

    Args:
        name: a folder as `save_pretrained` writes it, or `org/repo`; `local-dir:` and `hf-hub:` may precede it.

    Raises:
        CapivaraError: the folder does not exist or has no weights, or the hub cannot be reached.
    """
    name = _bare(name)
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CapivaraError(f"{name}: no config.json in that folder", "save_pretrained of transformers writes one")
        foreign.check_files(folder)
        if not weights_in(name):
            raise CapivaraError(f"{name}: no weights (model.safetensors) in that folder", "copy the whole folder")
        return str(folder.absolute())
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CapivaraError(f"{name}: no such folder, and not a name on the hub", "--model FOLDER or ORG/REPO")
    if reason := why_unreachable(name):
        raise CapivaraError(
            f"{name} is not on this machine, and the hub cannot be reached: {reason}",
            "run once with network, or copy the model's folder here and use --model FOLDER",
        )
    return name


def weights_in(source: str) -> list[Path]:
    """Return the files of weights in a folder; empty for a repository."""
    return [path for suffix in ("safetensors", "bin") for path in Path(source).glob(f"*.{suffix}")]


def identity_of(name: str) -> str | None:
    """Return a hash that changes with the files of a model in a folder; None for a model of the hub."""
    folder = Path(_bare(name))
    return artifacts.files_identity(folder) if folder.is_dir() else None


def _bare(name: str) -> str:
    return name.removeprefix("local-dir:").removeprefix("hf-hub:")
