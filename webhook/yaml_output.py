"""Writes values as YAML and JSON that every reader reads alike."""

import json
import re
from typing import Any, Final

import yaml

from webhook.manifest_reader import is_plain_string

_NOT_PRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_SIMPLE_WORD: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*", re.ASCII)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is not true, and the order of members does not count."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that is YAML too: no pairs of surrogates, and no line separators of Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


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
