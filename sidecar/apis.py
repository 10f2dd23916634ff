"""The APIs that Attach may call for an upstream, as an exchange answer names them.

Paths are relative to `base_url`. A prefix matches whole segments, letter for letter. An excluded
path is refused below a prefix too; it matches in every spelling that a server could read as it.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from sidecar.missing_scope_rule import MissingScopeRule, read_rule

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_METHOD: Final = re.compile(r"(?!TRACE$|CONNECT$)[A-Z][A-Z-]{1,31}", re.ASCII)
_HOST: Final = re.compile(r"(?:[a-z0-9-]+\.)*[a-z][a-z0-9-]*", re.ASCII)
_PREFIX: Final = re.compile(r"/|(?:/[!-.0-9:-~]+)+", re.ASCII)
_WORD: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_MOST_DECODED: Final = 3

HAND_OUT: Final = "HandOut"
ATTACH: Final = "Attach"


class Api(NamedTuple):
    """One API of an upstream; `ca` is PEM, None where the system's authorities count.

    `credential_headers` are in lower case. `search_answers`: answers are searched for the token.
    `missing_scope` is None where its users cannot be asked for a scope.
    """

    name: str
    base_url: str
    methods: tuple[str, ...]
    path_prefixes: tuple[str, ...]
    default: bool
    credential_headers: tuple[str, ...]
    credential_parameters: tuple[str, ...]
    link_members: tuple[str, ...]
    search_answers: bool
    ca: str | None = None
    excluded_paths: tuple[str, ...] = ()
    missing_scope: MissingScopeRule | None = None

    def covers(self, path: str) -> bool:
        """Whether an absolute path, as it stands, is below a prefix and below no excluded path.

        Dot segments and the like are for the caller to refuse before.
        """
        if not any(_below(path, prefix) for prefix in self.path_prefixes):
            return False
        excluded = _pattern(self.excluded_paths)
        return not any(excluded.match(spelling) for spelling in _spellings(path))


class UnplacedApi(NamedTuple):
    """An API of which nobody has said where it is for this account: no call goes to it."""

    name: str
    default: bool


class InvalidApis(ValueError):
    """The list of APIs is not to the letter."""


def read_apis(value: object) -> tuple[Api, ...]:
    """The APIs of an answer's member. Equal members give the same tuple. Raises InvalidApis."""
    return _read(json.dumps(value))


def read_unplaced(value: object) -> tuple[UnplacedApi, ...]:
    """The APIs of an account without a base URL. Raises InvalidApis."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidApis
    return tuple(UnplacedApi(_text(one, "name", _NAME), _flag(one, "default")) for one in value)


@lru_cache(maxsize=32)
def _read(text: str) -> tuple[Api, ...]:
    members = json.loads(text)
    if not isinstance(members, list):
        raise InvalidApis
    apis = tuple(_api(one) for one in members)
    if len({api.name for api in apis}) != len(apis) or sum(api.default for api in apis) > 1:
        raise InvalidApis
    return apis


def _api(members: object) -> Api:
    if not isinstance(members, dict):
        raise InvalidApis
    base_url = _base_url(members.get("base_url"))
    # Accounts whose base URLs alone differ share everything else.
    rest = json.dumps({name: value for name, value in members.items() if name != "base_url"})
    return _without_base_url(rest)._replace(base_url=base_url)


@lru_cache(maxsize=32)
def _without_base_url(text: str) -> Api:
    # Members we do not know are left alone: a newer authserver may send them.
    members = json.loads(text)
    ca = members.get("ca")
    if ca is not None and not (isinstance(ca, str) and "-----BEGIN CERTIFICATE-----" in ca):
        raise InvalidApis
    try:
        missing_scope = read_rule(members.get("missing_scope"))
    except ValueError:
        raise InvalidApis from None
    return Api(
        name=_text(members, "name", _NAME),
        base_url="",
        methods=_texts(members, "methods", _METHOD),
        path_prefixes=_texts(members, "path_prefixes", _PREFIX),
        default=_flag(members, "default"),
        credential_headers=tuple(
            name.lower() for name in _texts(members, "credential_headers", _WORD)
        ),
        credential_parameters=_texts(members, "credential_parameters", _WORD),
        link_members=_texts(members, "link_members", _WORD),
        search_answers=_flag(members, "search_answers"),
        ca=ca,
        excluded_paths=_texts(members, "excluded_paths", _PREFIX)
        if "excluded_paths" in members
        else (),
        missing_scope=missing_scope,
    )


def _base_url(value: object) -> str:
    """https, a named host, and a path: no IP address, user, query or fragment."""
    if not isinstance(value, str):
        raise InvalidApis
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise InvalidApis from None
    authority = f"{parts.hostname}:{port}" if port is not None else str(parts.hostname)
    if _HOST.fullmatch(parts.hostname or "") is None or not (
        parts.path == "" or (_PREFIX.fullmatch(parts.path) and parts.path != "/")
    ):
        raise InvalidApis
    if value != f"https://{authority}{parts.path}":
        raise InvalidApis
    return value


def _text(members: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = members.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidApis
    return value


def _texts(members: dict[str, Any], name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    values = members.get(name)
    if not isinstance(values, list) or not all(
        isinstance(value, str) and pattern.fullmatch(value) for value in values
    ):
        raise InvalidApis
    return tuple(values)


def _flag(members: dict[str, Any], name: str) -> bool:
    value = members.get(name)
    if not isinstance(value, bool):
        raise InvalidApis
    return value


def _below(path: str, prefix: str) -> bool:
    return prefix == "/" or path == prefix or path.startswith(f"{prefix}/")


@lru_cache(maxsize=64)
def _pattern(excluded_paths: tuple[str, ...]) -> re.Pattern[str]:
    """Matches spellings that are below an excluded path; without excluded paths, nothing."""
    return re.compile("|".join(map(_expression, excluded_paths)) or r"(?!)", re.DOTALL)


def _expression(excluded_path: str) -> str:
    """`*` is one segment, `**` any number of them.

    A segment may go on after a dot: some servers read `/keys.json` as `/keys`.
    """
    parts = []
    for segment in excluded_path.lower().split("/")[1:]:
        if segment == "**":
            parts.append(r"(?:/[^/]*)*?")
        elif segment == "*":
            parts.append(r"/[^/]*")
        else:
            parts.append(rf"/{re.escape(segment)}(?:[.;][^/]*)?")
    return "".join(parts) + r"(?=/|\Z)"


def _spellings(path: str) -> set[str]:
    """The path as different servers read it: escapes decoded, empty segments dropped."""
    if "%" not in path and "//" not in path:
        return {path.lower()}
    spellings = set()
    for segments in (path.split("/"), _decoded(path).split("/")):
        decoded = [_decoded(segment).replace("/", "\x00") for segment in segments]
        spellings.add("".join(f"/{segment}" for segment in decoded if segment).lower())
    return spellings


def _decoded(text: str) -> str:
    for _ in range(_MOST_DECODED):
        again = unquote(text)
        if again == text:
            break
        text = again
    return text
