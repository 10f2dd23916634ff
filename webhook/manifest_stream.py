"""Splits a stream of manifests into documents as kubectl does, and puts it together again.

YAML documents are separated by lines that begin with `---`. A document that begins with `{` may be
a stream of JSON objects. What nobody changes comes out byte for byte.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jsonpatch

from webhook import manifest_editor, manifest_reader
from webhook.manifest_reader import Unreadable
from webhook.yaml_output import as_json

_SEPARATOR: Final = re.compile(r"^---[^\n]*(?:\n|\Z)", re.MULTILINE)
_SPACE: Final = re.compile(r"[\ufeff \t\r\n]*")
_INDENT: Final = re.compile(r"[{\[]\r?\n([ \t]+)")


@dataclass(frozen=True)
class Document:
    """One document: the text before it (separator, white space), its own text, and its value."""

    before: str
    text: str
    data: Any
    is_json: bool
    first_line: int

    def with_added(self, operations: Sequence[Mapping[str, Any]]) -> str:
        """The document's text with the operations of a JSON Patch applied, `add` only."""
        if self.is_json:
            return self.rewritten(jsonpatch.apply_patch(self.data, list(operations)))
        edited = manifest_editor.add(self.text, operations)
        return self._behind_separator(edited)

    def rewritten(self, data: Any) -> str:
        """The document with other content, as JSON. Comments of a YAML document are lost."""
        if not self.is_json:
            return self._behind_separator(as_json(data, indent=2) + "\n")
        indent = _INDENT.match(self.text)
        separators = None if indent or '": ' in self.text else (",", ":")
        text = json.dumps(
            data,
            indent=indent[1] if indent else None,
            separators=separators,
            ensure_ascii=self.text.isascii(),
        )
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")

    def _behind_separator(self, text: str) -> str:
        # kubectl takes a stream that begins with `{` for JSON, separators included.
        return text if self.before or not text.startswith("{") else f"---\n{text}"


def documents(text: str) -> Iterator[Document]:
    """The stream's documents in order; together they are the whole text. Raises Unreadable."""
    position, before = 0, ""
    for separator in [*_SEPARATOR.finditer(text), None]:
        end = separator.start() if separator else len(text)
        line = 1 + text.count("\n", 0, position)
        yield from _read(before, text[position:end], line)
        if separator:
            before, position = separator[0], separator.end()


def _read(before: str, text: str, line: int) -> Iterator[Document]:
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        try:
            objects = list(_json_objects(before, text, line))
        except (ValueError, RecursionError):
            pass  # YAML may begin with a flow mapping
        else:
            yield from objects
            return
    try:
        node = manifest_reader.read(text)
        data = manifest_reader.to_data(node, text) if node is not None else None
    except (Unreadable, RecursionError) as unreadable:
        raise Unreadable(f"document at line {line}: {unreadable}") from None
    yield Document(before, text, data, False, line)


def _json_objects(before: str, text: str, line: int) -> Iterator[Document]:
    decoder, position = json.JSONDecoder(parse_constant=_no_constant), 0
    while True:
        start = _end_of_space(text, position)
        if start == len(text):
            yield Document(before, text[position:], None, True, line)
            return
        data, end = decoder.raw_decode(text, start)
        if not isinstance(data, dict):
            raise ValueError("not an object")
        gap = before + text[position:start]
        yield Document(gap, text[start:end], data, True, line + text.count("\n", 0, start))
        before, position = "", end


def _end_of_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
