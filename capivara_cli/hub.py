"""The hub that weights come from: asked once and briefly before anything waits for it."""

from __future__ import annotations

from pathlib import Path

SECONDS = 10  # to wait for an answer; the hub's own client tries again and again for a minute


def why_unreachable(repo: str) -> str | None:
    """Why the repository cannot be had: None when it is in the local cache, or when the hub answers.

    Args:
        repo: `org/name`.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo.strip("/"), repo_type="model")
    if any(folder.glob("snapshots/*")):
        return None
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # of the HTTP client that this version of the hub's library is built on
        return str(error) or type(error).__name__
    return None
