"""The one reader of YAML. A file from elsewhere costs a bounded time and memory, and runs nothing.

Refused are large files, deep nesting, aliases (a few lines of them expand to gigabytes), tags, keys that are repeated
(only the last would count), and texts that UTF-8 cannot express.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from capivara_cli.errors import CapivaraError, explained

MAX_BYTES = 16 << 20
MAX_NODES = 200_000  # values and keys: PyYAML takes some 60 µs and 700 bytes for each
MAX_DEPTH = 50
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character; "\ud800" makes one

Scalars = Literal["all", "numbers", "texts"]
RESOLVED = {"all": {"null", "bool", "int", "float"}, "numbers": {"null", "int", "float"}, "texts": {"null"}}


def read_yaml(path: Path, scalars: Scalars = "all") -> Any:
    """Read a YAML file; see `parse_yaml`. Raises CapivaraError with the file, and where in it the problem is."""
    with explained(f"cannot read {path}"), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise CapivaraError(f"{path} is larger than {MAX_BYTES >> 20} MiB: too large for YAML")
    with explained(f"{path} is not YAML", UnicodeDecodeError):
        text = content.decode("utf-8-sig")
    return parse_yaml(text, f"{path} is not YAML", scalars)


def parse_yaml(text: str, problem: str, scalars: Scalars = "all") -> Any:
    """Return the value that a text of YAML describes.

    Args:
        problem: what the message begins with if the text is refused: `FILE is not YAML`.
        scalars: which scalars are more than texts: null, truth values and numbers; null and numbers; or only null, for
            files in which `no` is a language and `0` a label.

    Raises:
        CapivaraError: with the line and column of what is not YAML, or is refused.
    """
    import yaml

    with explained(problem, (yaml.YAMLError, ValueError)):  # ValueError: a number of 5,000 digits
        return yaml.load(text, Loader=_loader(scalars))  # noqa: S506  # a SafeLoader


@cache
def _loader(scalars: Scalars) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Builds a tree within bounds."""

        depth = nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            self.depth, self.nodes = self.depth + 1, self.nodes + 1
            if isinstance(event, yaml.AliasEvent):
                raise _refusal("an alias (*) is not allowed", event)
            if event.tag not in (None, "!"):
                raise _refusal(f"a tag ({event.tag}) is not allowed", event)
            if self.depth > MAX_DEPTH:
                raise _refusal(f"nested more than {MAX_DEPTH} deep", event)
            if self.nodes > MAX_NODES:
                raise _refusal(f"more than {MAX_NODES:,} keys and values", event)
            node = super().compose_node(parent, index)
            self.depth -= 1
            if isinstance(node, yaml.ScalarNode) and SURROGATE.search(node.value):
                raise _refusal("half of a character (a lone surrogate)", node)
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = set()
            for key_node, _ in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise _refusal("a key that is not a text", key_node)
                key = self.construct_object(key_node)
                if key in keys:
                    raise _refusal(f"the key {key} is repeated", key_node)
                keys.add(key)
            return super().construct_mapping(node, deep)

    # A copy: the resolvers belong to a class, and are shared with the class that it inherits from.
    Loader.yaml_implicit_resolvers = {
        first: [resolver for resolver in resolvers if resolver[0].rpartition(":")[2] in RESOLVED[scalars]]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    if scalars == "all":
        number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")  # YAML 1.1 reads 1e-5 as a text
        Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def _refusal(reason: str, at: Any) -> Exception:
    import yaml

    return yaml.YAMLError(f"{reason}: line {at.start_mark.line + 1}, column {at.start_mark.column + 1}")
