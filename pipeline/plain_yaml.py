"""YAML without what surprises: no aliases, no tags, no repeated keys, no dates, not too deep."""

from typing import Any

import yaml

MAX_DEPTH = 20
PLAIN_TYPES = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")
)
"""What JSON knows too; what looks like a date to YAML is refused with its line."""


class PlainLoader(yaml.SafeLoader):
    """Safe YAML without aliases, without tags, without repeated keys, not too deep."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError(f"line {self.line + 1}: no aliases here")
        if (tag := self.peek_event().tag) is not None:  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"line {self.line + 1}: no tags here (it is {tag!r:.60})")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag not in PLAIN_TYPES:
            kind = node.tag.rpartition(":")[2]
            raise yaml.YAMLError(
                f"line {node.start_mark.line + 1}: this is a {kind} to YAML; put it in quotes"
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {line}: key {key!r} is not text")
            if key in seen:
                raise yaml.YAMLError(f"line {line}: key '{key}' appears twice")
            seen.add(key)
        return super().construct_mapping(node, deep)
