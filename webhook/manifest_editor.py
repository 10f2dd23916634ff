"""Writes additions into the text of a YAML document. Every other character stays as it is.

The operations are the webhook's JSON Patch: `add` only. A part that the document uses several times
through an alias is written out where it changes, so no other use of it changes along.
"""

import re
from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType
from dataclasses import dataclass
from typing import Any, Final

import jsonpatch

from webhook.manifest_reader import (
    Mapping,
    Node,
    Sequence,
    Unreadable,
    read,
    to_data,
)
from webhook.manifest_tree import Added, AdditionTree, CannotEdit
from webhook.yaml_output import as_json, dump, same

_COMMENT_OR_EMPTY: Final = re.compile(r"[ \t]*(?:#.*)?\r?$")


@dataclass(frozen=True, order=True)
class _Edit:
    start: int
    end: int
    text: str


def add(text: str, operations: SequenceType[MappingType[str, Any]]) -> str:
    """The document with `operations` applied.

    The result is read again and compared. If an unusual layout defeats the editor, the whole
    document is printed as JSON, which is YAML too: right in its values, without its comments.
    """
    root = read(text)
    if root is None:
        return text
    wanted = patched(to_data(root, text), operations)
    try:
        tree = AdditionTree(text, root)
        tree.apply(operations)
        edited = _Writer(tree).write()
        again = read(edited)
        if again is not None and same(to_data(again, edited), wanted):
            return edited
    except (CannotEdit, Unreadable):
        pass
    return as_json(wanted, indent=2) + "\n"


def patched(data: Any, operations: SequenceType[MappingType[str, Any]]) -> Any:
    """A copy of the value with `operations` applied."""
    return jsonpatch.apply_patch(data, list(operations))


class _Writer:
    def __init__(self, tree: AdditionTree) -> None:
        self.tree, self.text = tree, tree.text
        self.edits: list[_Edit] = []
        self.inserted: dict[int, str] = {}
        self.newline = "\r\n" if "\r\n" in tree.text else "\n"

    def write(self) -> str:
        """The text with the tree's additions."""
        self._keep_aliases()
        self._collect(self.tree.root)
        self.edits += [_Edit(at, at, text) for at, text in self.inserted.items()]
        pieces, position = [], 0
        for edit in sorted(self.edits):
            pieces += [self.text[position : edit.start], edit.text]
            position = edit.end
        return "".join([*pieces, self.text[position:]])

    # Aliases of what changes

    def _keep_aliases(self) -> None:
        """Move an anchor from a changed node to the first alias of it that keeps the old value."""
        for node in self.tree.touched.values():
            kept = [alias for alias in node.aliases if id(alias) not in self.tree.rewritten]
            if node.anchor is None or not kept:
                continue
            anchor = re.compile(rf"&{re.escape(node.anchor)}(?=[\s,\[\]{{}}])[ \t]*")
            match = anchor.match(self.text, node.start)
            if match is None:
                raise CannotEdit
            original = _flow(self.tree.data(node))
            self.edits.append(_Edit(match.start(), match.end(), ""))
            first = min(kept, key=lambda alias: alias.start)
            self.edits.append(_Edit(first.start, first.end, f"&{node.anchor} {original}"))

    # Writing the tree's additions into the text

    def _collect(self, node: Node) -> None:
        if isinstance(node, Sequence):
            self._in_sequence(node)
        elif isinstance(node, Mapping):
            self._in_mapping(node)

    def _in_sequence(self, node: Sequence) -> None:
        present = [item for item in node.items if item.start >= 0]
        for at, item in enumerate(node.items):
            if isinstance(item, Added) and item.start >= 0:
                self.edits.append(_Edit(item.start, item.end, _flow(item.value)))
            elif not isinstance(item, Added):
                self._collect(item)
            elif all(isinstance(one, Added) and one.start < 0 for one in node.items[: at + 1]):
                self._before(node, present, item.value)
            else:
                self._after(node, present, item.value)

    def _before(self, node: Sequence, present: list[Node], value: Any) -> None:
        if not present:
            self._only(node, _flow(value))
        elif node.flow:
            self._insert(present[0].start, f"{_flow(value)}, ")
        else:
            dash = self._dash(present[0])
            at = self._line_start(dash)
            if self.text[at:dash].strip():  # the sequence begins within a line
                after = self.newline + " " * (dash - at)
                self._insert(dash, self._item(value, dash - at) + after)
                return
            while _is_comment(line := self._line_before(at)):
                at -= len(line)
            column = dash - self._line_start(dash)
            self._insert(at, " " * column + self._item(value, column) + self.newline)

    def _after(self, node: Sequence, present: list[Node], value: Any) -> None:
        last = present[-1]
        if node.flow:
            self._insert(last.end, f", {_flow(value)}")
            return
        dash = self._dash(present[0])
        column = dash - self._line_start(dash)
        self._append_line(self._end(last), column, self._item(value, column))

    def _in_mapping(self, node: Mapping) -> None:
        present = [(key, value) for key, value in node.pairs if key.start >= 0]
        for key, value in node.pairs:
            if not isinstance(value, Added):
                self._collect(value)
            elif key.start >= 0:
                self._replace(node, key, value)
            elif not present:
                self._only(node, f"{_flow(key_of(key))}: {_flow(value.value)}")
            elif node.flow:
                member = f", {_flow(key_of(key))}: {_flow(value.value)}"
                self._insert(self._value_end(present), member)
            else:
                column = present[0][0].start - self._line_start(present[0][0].start)
                lines = self._indented(dump({key_of(key): value.value}), column)
                self._append_line(self._end(present[-1][1]), column, lines)

    def _value_end(self, present: list[tuple[Node, Node]]) -> int:
        key, value = present[-1]
        return max(key.end, value.end)

    def _replace(self, node: Mapping, key: Node, value: Added) -> None:
        """Write a value over null, an empty text, an alias or a text of ours."""
        before = (
            " " if value.start == value.end and not self.text[value.start - 1].isspace() else ""
        )
        if value.start == value.end and node.flow and self.text[key.end : key.end + 1] != ":":
            before = ": "
        if value.start == value.end:
            self._insert(value.start, before + _flow(value.value))
        else:
            self.edits.append(_Edit(value.start, value.end, _flow(value.value)))

    def _only(self, node: Mapping | Sequence, content: str) -> None:
        """Fill an empty flow collection; several additions are separated by commas."""
        if not node.flow:
            raise CannotEdit
        at = node.end - 1
        separator = ", " if at in self.inserted else ""
        self._insert(at, separator + content)

    def _insert(self, at: int, text: str) -> None:
        """Additions at one place stay in the order in which they were made."""
        self.inserted[at] = self.inserted.get(at, "") + text

    def _append_line(self, end: int, column: int, lines: str) -> None:
        """Add lines after the line on which `end` lies, or at `end` if that begins a line."""
        block = " " * column + lines
        if end > 0 and self.text[end - 1] == "\n":
            self._insert(end, block + self.newline)
            return
        stop = self.text.find("\n", end)
        stop = len(self.text) if stop < 0 else stop
        stop -= stop > 0 and self.text[stop - 1] == "\r"
        if not _COMMENT_OR_EMPTY.match(self.text, end, stop):
            raise CannotEdit
        self._insert(stop, self.newline + block)

    def _item(self, value: Any, column: int) -> str:
        return self._indented(dump([value]), column)

    def _indented(self, block: str, column: int) -> str:
        return block.rstrip("\n").replace("\n", self.newline + " " * column)

    def _dash(self, item: Node) -> int:
        before = self.text[: item.start].rstrip()
        if not before.endswith("-"):
            raise CannotEdit
        return len(before) - 1

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _line_before(self, at: int) -> str:
        return self.text[self._line_start(at - 1) : at] if at > 0 else ""

    def _end(self, node: Node) -> int:
        """Where the last character of a node's content is: a block collection ends with its last
        child, not where the next token begins.
        """
        if isinstance(node, Mapping) and not node.flow and node.pairs:
            present = [pair for pair in node.pairs if pair[0].start >= 0]
            return max(self._end(present[-1][1]), present[-1][0].end)
        if isinstance(node, Sequence) and not node.flow and node.items:
            present_items = [item for item in node.items if item.start >= 0]
            return self._end(present_items[-1])
        return node.end


def key_of(key: Node) -> Any:
    return key.value if isinstance(key, Added) else None


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _flow(value: Any) -> str:
    return as_json(value)
