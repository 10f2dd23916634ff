"""What Attach may call at an upstream: its APIs, as an operator or a preset names them."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from authserver.config.base_url_from import HOST, MAX_HOST, PATH, SEGMENT, BaseUrlFrom
from authserver.config.value_types import UpstreamName
from chassis.config_types import Model, matches_pattern

# The sidecar reads answers of at most 64 KiB; a token needs room beside the APIs.
MAX_ANSWERED_BYTES: Final = 32 * 1024

_METHOD: Final = re.compile(r"(?!TRACE$|CONNECT$)[A-Z][A-Z-]{1,31}", re.ASCII)
_PREFIX: Final = re.compile(rf"/|(?:/{SEGMENT})+", re.ASCII)
_EXCLUDED: Final = re.compile(rf"(?:/(?:\*\*?|{SEGMENT}))+", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_WORD: Final = re.compile(r"[!-~]{1,64}", re.ASCII)

_IN_WORDS: Final = "a path such as /repos, without dot segments, escapes or a final slash"


def _base_url(text: str) -> str:
    """An https URL of a named host: no IP literal, user, query or fragment (RFC 3986)."""
    problem = (
        "must be https://HOST[:PORT][/PATH] with a host name in lower case: no IP address, no "
        "wildcard, no user, no query"
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(problem) from None
    authority = f"{parts.hostname}:{port}" if port is not None else parts.hostname
    plain = (
        parts.scheme == "https"
        and HOST.fullmatch(parts.hostname or "") is not None
        and PATH.fullmatch(parts.path) is not None
        and text == f"https://{authority}{parts.path}"
    )
    if not plain:
        raise ValueError(problem)
    return text


BaseUrl = Annotated[str, Field(max_length=512), AfterValidator(_base_url)]
Method = Annotated[
    str, matches_pattern(_METHOD, "an HTTP method in capitals; TRACE and CONNECT are never sent")
]
PathPrefix = Annotated[str, Field(max_length=256), matches_pattern(_PREFIX, _IN_WORDS)]
ExcludedPath = Annotated[
    str,
    Field(max_length=256),
    matches_pattern(_EXCLUDED, f"{_IN_WORDS}; * is one segment, ** any number of them"),
]
HeaderName = Annotated[str, matches_pattern(_HEADER, "a header's name")]
Word = Annotated[str, matches_pattern(_WORD, "a name of printable ASCII without spaces")]


class ScopeHeaders(Model):
    """Headers of a 403: the scopes of which one is enough, and those that the token has."""

    accepted: HeaderName
    granted: HeaderName


class ScopeMembers(Model):
    """Members of a JSON answer with `status`: where `error` is `value`, `scopes` names them."""

    status: Annotated[int, Field(ge=200, le=499)]
    error: Word
    value: Word
    scopes: Word


class MissingScope(Model):
    """How an API says that a token lacks a scope, beside a Bearer challenge (RFC 6750 section 3).

    `anyOf`: of the scopes that it names, one is enough.
    """

    any_of: bool = False
    headers: ScopeHeaders | None = None
    members: ScopeMembers | None = None


class ApiSettings(Model):
    """One API: `methods` under `baseUrl` + `pathPrefixes`, apart from `excludedPaths`.

    `baseUrlFrom` in place of `baseUrl`: each account has its own, which its token answer says.
    `credentialHeaders` and `credentialParameters` authenticate at this API and are dropped.
    `linkMembers` are members of JSON answers whose links are rewritten. `searchAnswers`: answers
    are searched for the token. `missingScope` is how it says that a scope is missing.
    """

    name: UpstreamName
    base_url: BaseUrl | None = None
    base_url_from: BaseUrlFrom | None = None
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=32)]
    path_prefixes: Annotated[tuple[PathPrefix, ...], Field(min_length=1, max_length=256)]
    excluded_paths: Annotated[tuple[ExcludedPath, ...], Field(max_length=256)] = ()
    default: bool = False
    credential_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    credential_parameters: Annotated[tuple[Word, ...], Field(max_length=64)] = ()
    link_members: Annotated[tuple[Word, ...], Field(max_length=256)] = ()
    search_answers: bool = True
    missing_scope: MissingScope = MissingScope()

    @model_validator(mode="after")
    def _has_one_base_url(self) -> Self:
        if (self.base_url is None) == (self.base_url_from is None):
            raise ValueError("needs either baseUrl, or baseUrlFrom where it depends on the account")
        return self

    @property
    def base_path(self) -> str:
        """The path of the base URL, which is the same for every account."""
        if self.base_url_from is not None:
            return self.base_url_from.path
        return urlsplit(self.base_url or "").path

    def answered(self, ca: str | None, askable: Sequence[str] = ()) -> dict[str, Any]:
        """As an exchange answer has it; `ca` is PEM, None where the system's CAs count.

        `askable` are the scopes that a user may be asked for, the first ones preferred. `base_url`
        is None where it depends on the account.
        """
        left_out = {"missing_scope", "base_url_from"}
        members = self.model_dump(mode="json", by_alias=False, exclude=left_out)
        if not self.excluded_paths:
            del members["excluded_paths"]
        if askable:
            rule = self.missing_scope.model_dump(mode="json", by_alias=False, exclude_none=True)
            members["missing_scope"] = rule | {"askable": list(askable)}
        return members if ca is None else members | {"ca": ca}


class Apis(Model):
    """The APIs of one upstream, told apart by their names."""

    apis: Annotated[tuple[ApiSettings, ...], Field(max_length=32)] = ()

    @property
    def account_hosts(self) -> dict[str, tuple[str, ...]]:
        """The members of a token answer that say where APIs are, each with its host patterns."""
        hosts: dict[str, tuple[str, ...]] = {}
        for api in self.apis:
            if (rule := api.base_url_from) is not None:
                hosts[rule.member] = (*hosts.get(rule.member, ()), *rule.hosts)
        return hosts

    @field_validator("apis")
    @classmethod
    def _told_apart(cls, apis: tuple[ApiSettings, ...]) -> tuple[ApiSettings, ...]:
        if twice := [
            name for name, count in Counter(api.name for api in apis).items() if count > 1
        ]:
            raise ValueError(f"{', '.join(twice)}: stands here twice")
        if sum(api.default for api in apis) > 1:
            raise ValueError("at most one API is the default; the others are named by their paths")
        return apis


def check_fits_into_an_answer(answered: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError where APIs as answered are longer than a sidecar reads."""
    unknown = sum(MAX_HOST for api in answered if api["base_url"] is None)
    if len(json.dumps(answered)) + unknown > MAX_ANSWERED_BYTES:
        raise ValueError(
            "apis and caFile together are longer than 32 KiB, which a sidecar does not read: "
            "keep only the authorities that sign here"
        )
