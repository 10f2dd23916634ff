"""Applies the operations of a JSON Patch to the tree of a YAML document, `add` only.

The tree keeps the places of its nodes in the text, so `manifest_editor` can write additions there.
"""

from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import jsonpatch

from webhook.manifest_reader import (
    Alias,
    Mapping,
    Node,
    Scalar,
    Sequence,
    is_merge,
    key_text,
    nodes,
    to_data,
)


class CannotEdit(Exception):
    """The place of an addition was not found in the text."""


@dataclass(eq=False)
class Added(Node):
    """A value that the text does not have yet; `start` and `end` are the text it replaces."""

    value: Any = None


class AdditionTree:
    """A document's tree. `touched` are its changed collections, `rewritten` the aliases that go."""

    def __init__(self, text: str, root: Node) -> None:
        self.text, self.root = text, root
        self.touched: dict[int, Mapping | Sequence] = {}
        self.rewritten: set[int] = set()
        self.original = {(type(one), one.start, one.end): one for one in nodes(text)}

    def apply(self, operations: SequenceType[MappingType[str, Any]]) -> None:
        """Raises CannotEdit where the tree has no such place."""
        for operation in operations:
            self._add(operation["path"], operation["value"])

    def data(self, node: Node) -> Any:
        """The node's value before any operation; the tree itself changes with each of them."""
        return to_data(self.original[type(node), node.start, node.end], self.text)

    def _add(self, pointer: str, value: Any) -> None:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]
        ]
        node = self.root
        for at, part in enumerate(parents):
            if isinstance(node, Added):
                rest = "/".join(
                    p.replace("~", "~0").replace("/", "~1") for p in [*parents[at:], last]
                )
                operation = {"op": "add", "path": f"/{rest}", "value": value}
                jsonpatch.apply_patch(node.value, [operation], in_place=True)
                return
            node = self._child(node, part)
        self._put(node, last, value)

    def _child(self, node: Node, part: str) -> Node:
        """The child to change. A child that is an alias or merged becomes a copy of its own."""
        if isinstance(node, Sequence):
            child = node.items[int(part)]
            if isinstance(child, Alias):
                child = node.items[int(part)] = self._copied(child)
        elif isinstance(node, Mapping):
            at = self._place(node, part)
            if at is None:
                return self._merged(node, part)
            key, child = node.pairs[at]
            if isinstance(child, Alias):
                child = self._copied(child)
                node.pairs[at] = (key, child)
        else:
            raise CannotEdit
        self._touch(node)
        return child

    def _copied(self, alias: Alias) -> Added:
        self.rewritten.add(id(alias))
        return Added(alias.start, alias.end, self.data(alias))

    def _merged(self, node: Mapping, part: str) -> Node:
        data = self.data(node)
        if part not in data:
            raise CannotEdit
        child = Added(-1, -1, data[part])
        self._touch(node)
        node.pairs.append((Added(-1, -1, part), child))
        return child

    def _place(self, node: Mapping, part: str) -> int | None:
        """Where the mapping has that key. Of several equal keys the last one counts."""
        for at in range(len(node.pairs) - 1, -1, -1):
            key = node.pairs[at][0]
            if isinstance(key, Added) and key.value == part:
                return at
            if not isinstance(key, Scalar) or is_merge(key, self.text):
                continue
            if key_text(key.value) == part:
                return at
        return None

    def _put(self, node: Node, last: str, value: Any) -> None:
        if isinstance(node, Added):
            operation = {"op": "add", "path": "/" + last.replace("~", "~0").replace("/", "~1")}
            jsonpatch.apply_patch(node.value, [operation | {"value": value}], in_place=True)
            return
        added = Added(-1, -1, deepcopy(value))
        if isinstance(node, Sequence):
            node.items.insert(len(node.items) if last == "-" else int(last), added)
        elif isinstance(node, Mapping):
            at = self._place(node, last)
            if at is None:
                node.pairs.append((Added(-1, -1, last), added))
            else:
                key, old = node.pairs[at]
                added.start, added.end = old.start, old.end
                if isinstance(old, Alias):
                    self.rewritten.add(id(old))
                node.pairs[at] = (key, added)
        else:
            raise CannotEdit
        self._touch(node)

    def _touch(self, node: Mapping | Sequence) -> None:
        self.touched[id(node)] = node
