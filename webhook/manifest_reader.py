"""Reads YAML the way kubectl does, and keeps the place of every node in the text.

PyYAML only splits the text into events. Its resolvers follow YAML 1.1 as Python programs use it:
`12:30` becomes a number there, and `1e3` a string. kubectl reads both the other way round. So the
values are resolved here, after kubectl's reader (sigs.k8s.io/yaml, a fork of go-yaml v2).
"""

import base64
import re
from collections.abc import Iterator
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

# libyaml where PyYAML was built with it: ten times faster, and kubectl's parser is a port of it.
_LOADER: Final[Any] = getattr(yaml, "CLoader", yaml.Loader)

_TAG: Final = "tag:yaml.org,2002:"
_WORDS: Final[dict[str, Any]] = {
    word: value
    for value, words in (
        (None, " ~ null Null NULL"),
        (True, "y Y yes Yes YES true True TRUE on On ON"),
        (False, "n N no No NO false False FALSE off Off OFF"),
        (float("inf"), ".inf .Inf .INF +.inf +.Inf +.INF"),
        (float("-inf"), "-.inf -.Inf -.INF"),
        (float("nan"), ".nan .NaN .NAN"),
    )
    for word in words.split(" ")
}
_INTEGER: Final = re.compile(
    r"[+-]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)|0[oO]?(?P<octal>[0-7]+)"
    r"|(?P<decimal>0|[1-9][0-9]*))",
    re.ASCII,
)
_BASES: Final = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}
_FLOAT: Final = re.compile(r"[+-]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][+-]?[0-9]+)?", re.ASCII)

# Aliases of aliases can describe billions of nodes in a few lines.
_MAX_NODES: Final = 1_000_000
_MAX_DEPTH: Final = 200


class Unreadable(ValueError):
    """The text is not YAML that kubectl reads. The message names the problem and the line."""


@dataclass(eq=False)
class Node:
    """A value and its place: `text[start:end]`, an anchor or a tag before it included."""

    start: int
    end: int


@dataclass(eq=False)
class Scalar(Node):
    value: Any = None


@dataclass(eq=False)
class Mapping(Node):
    flow: bool = False
    anchor: str | None = None
    aliases: list["Alias"] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


@dataclass(eq=False)
class Sequence(Node):
    flow: bool = False
    anchor: str | None = None
    aliases: list["Alias"] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)


@dataclass(eq=False)
class Alias(Node):
    target: Node = field(default_factory=lambda: Scalar(0, 0))


def resolve(text: str) -> Any:
    """The value of a plain scalar: a string, an integer, a float, a boolean or None."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    plain = text if text[0] == "." else text.replace("_", "")
    if (integer := _INTEGER.fullmatch(plain)) and (base := integer.lastgroup):
        value = int(integer[base], _BASES[base]) * (-1 if plain[0] == "-" else 1)
        if -(2**63) <= value < 2**64:
            return value
    if _FLOAT.fullmatch(plain):
        number = float(plain)
        return int(number) if number.is_integer() and abs(number) < 1e21 else number
    return text


def is_plain_string(text: str) -> bool:
    """Whether kubectl reads this word as a string when it has no quotes."""
    return isinstance(resolve(text), str)


def read(text: str) -> Node | None:
    """The tree of one document; None if it is empty. Raises Unreadable."""
    try:
        return _Composer(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise Unreadable(f"{problem}{line}") from None


def nodes(text: str) -> Iterator[Node]:
    """Every node of a fresh tree of the document."""
    root = read(text)
    stack = [root] if root is not None else []
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Sequence):
            stack += node.items
        elif isinstance(node, Mapping):
            stack += [part for pair in node.pairs for part in pair]


class _Composer:
    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.anchors: dict[str | None, Node] = {}
        self.open: set[int] = set()
        self.closed = 0

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise Unreadable("two documents where one was expected")
            elif isinstance(event, yaml.NodeEvent):
                root = self.node(event, 0)
        return root

    def node(self, event: Any, depth: int) -> Node:
        if depth > _MAX_DEPTH:
            raise Unreadable(f"nested deeper than {_MAX_DEPTH} levels")
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor, start, end)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(start, end, _scalar(event))
            self.anchors[event.anchor] = node
            return node
        node = self.collection(event, start, end, depth)
        node.end = self.closed
        return node

    def alias(self, anchor: str | None, start: int, end: int) -> Alias:
        target = self.anchors.get(anchor)
        if target is None or id(target) in self.open:
            raise Unreadable("an alias without an anchor before it")
        alias = Alias(start, end, target)
        if isinstance(target, Mapping | Sequence):
            target.aliases.append(alias)
        return alias

    def collection(self, event: Any, start: int, end: int, depth: int) -> Node:
        node: Mapping | Sequence
        if isinstance(event, yaml.SequenceStartEvent):
            node = Sequence(start, end, bool(event.flow_style), event.anchor)
        else:
            node = Mapping(start, end, bool(event.flow_style), event.anchor)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self.open.add(id(node))
        children = []
        for child in self.events:
            if isinstance(child, yaml.CollectionEndEvent):
                self.closed = child.end_mark.index if child.end_mark else end
                break
            children.append(self.node(child, depth + 1))
        self.open.discard(id(node))
        if isinstance(node, Sequence):
            node.items = children
        else:
            node.pairs = list(zip(children[::2], children[1::2], strict=True))
        return node


def _scalar(event: Any) -> Any:
    tag = (event.tag or "").removeprefix(_TAG)
    if tag == "binary":
        try:
            return base64.b64decode(event.value).decode("utf-8", "replace")
        except ValueError:
            raise Unreadable("a !!binary value is not base64") from None
    plain = event.style in (None, "") and tag not in ("str", "!")
    return resolve(event.value) if plain or tag in ("int", "float", "bool") else event.value


def is_merge(key: Node, text: str) -> bool:
    """Whether the key is `<<` without quotes."""
    return isinstance(key, Scalar) and key.value == "<<" and text[key.start : key.end] == "<<"


class _Budget:
    def __init__(self) -> None:
        self.left = _MAX_NODES

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unreadable(f"aliases that stand for more than {_MAX_NODES} nodes")


def to_data(node: Node, text: str, budget: _Budget | None = None) -> Any:
    """The value as kubectl reads it: aliases expanded, merges applied, keys as strings.

    No two parts of the result are one object, so a change of one never shows in another.
    """
    budget = budget or _Budget()
    budget.spend()
    if isinstance(node, Alias):
        return to_data(node.target, text, budget)
    if isinstance(node, Sequence):
        return [to_data(item, text, budget) for item in node.items]
    if not isinstance(node, Mapping):
        return node.value if isinstance(node, Scalar) else None
    data: dict[str, Any] = {}
    for key, value in node.pairs:
        if is_merge(key, text):
            data |= _merged(value, text, budget)
        else:
            data[key_text(to_data(key, text, budget))] = to_data(value, text, budget)
    return data


def _merged(value: Node, text: str, budget: _Budget) -> dict[str, Any]:
    """What `<<` brings in. Of several mappings the first one wins (kubectl's order)."""
    source = to_data(value, text, budget)
    mappings = source if isinstance(source, list) else [source]
    if not all(isinstance(mapping, dict) for mapping in mappings):
        raise Unreadable("<< needs a mapping or a list of mappings")
    return {key: item for mapping in reversed(mappings) for key, item in mapping.items()}


def key_text(key: Any) -> str:
    """A key as kubectl writes it in JSON: `y` becomes "true", `1e3` becomes "1000"."""
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    if isinstance(key, dict | list):
        raise Unreadable("a key is a mapping or a list")
    return str(key)


def line_of(root: Node, path: Sequence_[str], text: str) -> int | None:
    """The line of the value at the path, counted from 1; None where the text does not name it."""
    node = root
    for part in path:
        node = node.target if isinstance(node, Alias) else node
        if isinstance(node, Sequence):
            node = node.items[int(part)]
        elif isinstance(node, Mapping):
            children = [
                value
                for key, value in node.pairs
                if isinstance(key, Scalar) and key_text(key.value) == part
            ]
            if not children:
                return None
            node = children[-1]
    return 1 + text.count("\n", 0, node.start)
