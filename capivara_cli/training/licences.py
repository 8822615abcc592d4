"""The licence of a base model, as the head of a model card names it on the Hugging Face hub."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from capivara_cli.errors import CapivaraError
from capivara_cli.models import hub
from capivara_cli.models.spec import DEFAULT_MODEL, DEFAULT_PRETRAINED, ModelSpec
from capivara_cli.yaml_files import parse_yaml

# The hub refuses a card with any other word: https://huggingface.co/docs/hub/repositories-licenses
IDENTIFIERS = """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1
    lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
    lgpl-lr deepfloyd-if-license llama2 gemma unknown
"""


def licence_of(base: ModelSpec) -> dict[str, Any]:
    """Return the keys of a card's head that name the base model's licence; none if it is not known.

    A licence that the hub does not list becomes `other`, with its name beside it.
    """
    if (base.name, base.pretrained) == (DEFAULT_MODEL, DEFAULT_PRETRAINED):
        return {"license": "mit"}
    head = _head(base)
    licence = head.get("license")
    if isinstance(licence, list) and len(licence) == 1:
        licence = licence[0]
    if not isinstance(licence, str) or not licence.strip():
        return {}
    identifier = licence.strip().lower()  # SPDX writes Apache-2.0
    if identifier in IDENTIFIERS.split():
        return {"license": identifier}
    name = head.get("license_name") or licence
    link = head.get("license_link")
    return {
        "license": "other",
        "license_name": re.sub(r"[^a-z0-9.+]+", "-", str(name).lower()).strip("-") or "other",
        **({"license_link": link} if re.match("https?://", str(link)) else {}),
    }


def _head(base: ModelSpec) -> dict[str, Any]:
    """Return the head of the base model's card; empty if it has none, or if the card is damaged or not at hand."""
    card = base.folder / "README.md" if base.folder is not None else hub.card_of(base.repo) if base.repo else None
    if card is None or not card.is_file():
        return {}
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n")
    head: Any = None
    with suppress(CapivaraError):
        head = parse_yaml(parts[1], str(card)) if len(parts) > 2 else None
    return head if isinstance(head, dict) else {}
