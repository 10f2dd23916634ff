"""Writes additions into the text of a YAML document. Every other character stays as it is.

The operations are the webhook's JSON Patch: `add` only. A part that the document uses several times
through an alias is written out where it changes, so no other use of it changes along.
"""

import json
import re
from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import jsonpatch
import yaml

from webhook.manifest_reader import (
    Alias,
    Mapping,
    Node,
    Scalar,
    Sequence,
    Unreadable,
    is_merge,
    is_plain_string,
    key_text,
    nodes,
    read,
    to_data,
)

_COMMENT_OR_EMPTY: Final = re.compile(r"[ \t]*(?:#.*)?\r?$")
_NOT_PRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_SIMPLE_WORD: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)


class _CannotEdit(Exception):
    """The place of an addition was not found in the text."""


@dataclass(eq=False)
class _Added(Node):
    """A value that the text does not have yet; `start` and `end` are the text it replaces."""

    value: Any = None


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
        edited = _Editor(text, root).apply(operations)
        again = read(edited)
        if again is not None and same(to_data(again, edited), wanted):
            return edited
    except (_CannotEdit, Unreadable):
        pass
    return as_json(wanted, indent=2) + "\n"


def patched(data: Any, operations: SequenceType[MappingType[str, Any]]) -> Any:
    """A copy of the value with `operations` applied."""
    return jsonpatch.apply_patch(data, list(operations))


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is not true, and the order of members does not count."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that is YAML too: no pairs of surrogates, and no line separators of Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def dump(value: Any) -> str:
    """Block YAML that every YAML reader reads alike."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, width=2**31, default_flow_style=False
    )
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style: str | None = '"'
    if _SIMPLE_WORD.fullmatch(text) and is_plain_string(text):
        style = None
    elif text.isascii() and re.fullmatch(r"(?:[!-~](?:[ -~]*[!-~])?\n){2,}", text):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _string)


class _Editor:
    def __init__(self, text: str, root: Node) -> None:
        self.text, self.root = text, root
        self.edits: list[_Edit] = []
        self.inserted: dict[int, str] = {}
        self.original = {(type(one), one.start, one.end): one for one in nodes(text)}
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.touched: dict[int, Mapping | Sequence] = {}
        self.rewritten: set[int] = set()

    def apply(self, operations: SequenceType[MappingType[str, Any]]) -> str:
        for operation in operations:
            self._add(operation["path"], operation["value"])
        self._keep_aliases()
        self._collect(self.root)
        self.edits += [_Edit(at, at, text) for at, text in self.inserted.items()]
        pieces, position = [], 0
        for edit in sorted(self.edits):
            pieces += [self.text[position : edit.start], edit.text]
            position = edit.end
        return "".join([*pieces, self.text[position:]])

    # Applying operations to the tree

    def _add(self, pointer: str, value: Any) -> None:
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]
        ]
        node = self.root
        for at, part in enumerate(parents):
            if isinstance(node, _Added):
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
            raise _CannotEdit
        self._touch(node)
        return child

    def _copied(self, alias: Alias) -> _Added:
        self.rewritten.add(id(alias))
        return _Added(alias.start, alias.end, self._data(alias))

    def _merged(self, node: Mapping, part: str) -> Node:
        data = self._data(node)
        if part not in data:
            raise _CannotEdit
        child = _Added(-1, -1, data[part])
        self._touch(node)
        node.pairs.append((_Added(-1, -1, part), child))
        return child

    def _place(self, node: Mapping, part: str) -> int | None:
        """Where the mapping has that key. Of several equal keys the last one counts."""
        for at in range(len(node.pairs) - 1, -1, -1):
            key = node.pairs[at][0]
            if isinstance(key, _Added) and key.value == part:
                return at
            if not isinstance(key, Scalar) or is_merge(key, self.text):
                continue
            if key_text(key.value) == part:
                return at
        return None

    def _put(self, node: Node, last: str, value: Any) -> None:
        if isinstance(node, _Added):
            operation = {"op": "add", "path": "/" + last.replace("~", "~0").replace("/", "~1")}
            jsonpatch.apply_patch(node.value, [operation | {"value": value}], in_place=True)
            return
        added = _Added(-1, -1, deepcopy(value))
        if isinstance(node, Sequence):
            node.items.insert(len(node.items) if last == "-" else int(last), added)
        elif isinstance(node, Mapping):
            at = self._place(node, last)
            if at is None:
                node.pairs.append((_Added(-1, -1, last), added))
            else:
                key, old = node.pairs[at]
                added.start, added.end = old.start, old.end
                if isinstance(old, Alias):
                    self.rewritten.add(id(old))
                node.pairs[at] = (key, added)
        else:
            raise _CannotEdit
        self._touch(node)

    def _touch(self, node: Mapping | Sequence) -> None:
        self.touched[id(node)] = node

    # Aliases of what changes

    def _keep_aliases(self) -> None:
        """Move an anchor from a changed node to the first alias of it that keeps the old value."""
        for node in self.touched.values():
            kept = [alias for alias in node.aliases if id(alias) not in self.rewritten]
            if node.anchor is None or not kept:
                continue
            anchor = re.compile(rf"&{re.escape(node.anchor)}(?=[\s,\[\]{{}}])[ \t]*")
            found = anchor.match(self.text, node.start)
            if found is None:
                raise _CannotEdit
            original = _flow(self._data(node))
            self.edits.append(_Edit(found.start(), found.end(), ""))
            first = min(kept, key=lambda alias: alias.start)
            self.edits.append(_Edit(first.start, first.end, f"&{node.anchor} {original}"))

    def _data(self, node: Node) -> Any:
        """The node's value before any operation; the tree itself changes with each of them."""
        return to_data(self.original[type(node), node.start, node.end], self.text)

    # Writing the tree's additions into the text

    def _collect(self, node: Node) -> None:
        if isinstance(node, Sequence):
            self._in_sequence(node)
        elif isinstance(node, Mapping):
            self._in_mapping(node)

    def _in_sequence(self, node: Sequence) -> None:
        present = [item for item in node.items if item.start >= 0]
        for at, item in enumerate(node.items):
            if isinstance(item, _Added) and item.start >= 0:
                self.edits.append(_Edit(item.start, item.end, _flow(item.value)))
            elif not isinstance(item, _Added):
                self._collect(item)
            elif all(isinstance(one, _Added) and one.start < 0 for one in node.items[: at + 1]):
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
            if not isinstance(value, _Added):
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

    def _replace(self, node: Mapping, key: Node, value: _Added) -> None:
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
            raise _CannotEdit
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
            raise _CannotEdit
        self._insert(stop, self.newline + block)

    def _item(self, value: Any, column: int) -> str:
        return self._indented(dump([value]), column)

    def _indented(self, block: str, column: int) -> str:
        return block.rstrip("\n").replace("\n", self.newline + " " * column)

    def _dash(self, item: Node) -> int:
        before = self.text[: item.start].rstrip()
        if not before.endswith("-"):
            raise _CannotEdit
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
    return key.value if isinstance(key, _Added) else None


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _flow(value: Any) -> str:
    return as_json(value)
