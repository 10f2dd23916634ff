"""What an exchange answer says of a token's use, and what a caller may want of a token."""

import json
import random
import re
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from sidecar.apis import Api
from sidecar.cached_token import CachedToken
from sidecar.token_request import TokenRequest
from tests.fakes.authserver import release
from tests.sidecar.harness import JWT, Harness

API: dict[str, Any] = {
    "name": "rest",
    "base_url": "https://api.example.com/v1",
    "methods": ["GET", "POST"],
    "path_prefixes": ["/repos", "/user"],
    "default": True,
    "credential_headers": ["X-Api-Key"],
    "credential_parameters": ["access_token"],
    "link_members": ["@odata.nextLink", "next"],
    "search_answers": True,
}


def with_members(status: int, **members: Any) -> web.Response:
    return web.json_response(members, status=status)


async def obtained(r: Harness) -> CachedToken:
    outcome = await r.sidecar.broker.obtain(JWT, TokenRequest())
    assert isinstance(outcome, CachedToken), outcome
    return outcome


# Hand-out.


async def test_a_token_that_is_for_attach_alone_is_not_handed_out(r: Harness) -> None:
    r.authserver.then(lambda: release(release=["Attach"], apis=[API], access_token="canary"))
    for memory in ("miss", "hit"):
        reply = await r.ask()
        assert (reply.status, reply.json["error"], reply.json["action"]) == (
            403,
            "attach_only",
            "none",
        )
        assert b"canary" not in reply.raw
        assert "WWW-Authenticate" not in reply.headers
        assert r.metric("tokenward_sidecar_cache_total", result=memory) == 1
    assert r.metric("tokenward_sidecar_requests_total", door="hand_out", result="attach_only") == 2
    assert len(r.authserver.received) == 1


@pytest.mark.parametrize("uses", [[], ["Attach"], ["handout"], ["Gateway"], ["Attach", "Later"]])
async def test_only_the_word_hand_out_hands_out(r: Harness, uses: list[str]) -> None:
    r.authserver.then(lambda: release(release=uses))
    assert (await r.ask()).json["error"] == "attach_only"


async def test_an_authserver_older_than_the_policy_means_hand_out_alone(r: Harness) -> None:
    older = lambda: release(release=None, apis=None)  # noqa: E731
    r.authserver.then(older, older)
    assert (await r.ask()).status == 200
    cached_token = await obtained(r)
    assert (cached_token.release, cached_token.apis) == (("HandOut",), ())


async def test_without_attach_there_are_no_apis_whatever_the_answer_says(r: Harness) -> None:
    r.authserver.then(lambda: release(release=["HandOut"], apis=[API]))
    assert (await obtained(r)).apis == ()


@pytest.mark.parametrize("uses", ["HandOut", None, {"HandOut": True}, [1], [None], 7])
async def test_a_release_policy_that_cannot_be_read_is_no_release(r: Harness, uses: Any) -> None:
    members = {"release": uses}
    if uses is None:
        r.authserver.then(lambda: web.json_response(_members() | members))
    else:
        r.authserver.then(lambda: release(**members))
    assert (await r.ask()).status == 503
    assert r.metric("tokenward_sidecar_cache_entries") == 0


def _members() -> dict[str, Any]:
    body = release().body
    assert isinstance(body, bytes)
    members = json.loads(body)
    assert isinstance(members, dict)
    return members


# APIs.


async def test_apis_are_kept_beside_the_token_as_small_values(r: Harness) -> None:
    ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    excluded = {"excluded_paths": ["/repos/*/*/keys"], "novelty": 1}
    apis = [API, API | excluded | {"name": "other", "default": False, "ca": ca}]
    r.authserver.then(lambda: release(apis=apis))
    cached_token = await obtained(r)
    assert cached_token.access_token == "upstream-token"
    assert (cached_token.upstream, cached_token.release) == ("github", ("HandOut", "Attach"))
    assert cached_token.apis == (
        Api(
            name="rest",
            base_url="https://api.example.com/v1",
            methods=("GET", "POST"),
            path_prefixes=("/repos", "/user"),
            default=True,
            credential_headers=("x-api-key",),
            credential_parameters=("access_token",),
            link_members=("@odata.nextLink", "next"),
            search_answers=True,
        ),
        cached_token.apis[0]._replace(
            name="other", default=False, ca=ca, excluded_paths=("/repos/*/*/keys",)
        ),
    )
    assert "upstream-token" not in repr(cached_token)


async def test_equal_apis_of_many_tokens_are_one_object(r: Harness) -> None:
    r.authserver.then(lambda: release(apis=[API]), lambda: release(apis=[API]))
    first = await obtained(r)
    second = await r.sidecar.broker.obtain("other.b.c", TokenRequest())
    assert isinstance(second, CachedToken)
    assert first.apis is second.apis


_NOT_TO_THE_LETTER: dict[str, list[Any]] = {
    "name": [7, "", "A", "a/b", "..", "a" * 33],
    "base_url": [
        7, "", "http://api.example.com", "https://", "https://127.0.0.1",
        "https://[::1]", "https://2130706433", "https://0x7f.1", "https://127.1",
        "https://*.example.com", "https://user@api.example.com", "https://a.example#f",
        "https://a.example/?q=1", "https://a.example/v1/", "https://A.example",
        "https://a.example:x", "https://a.example\\@b.example", "https://a.example/a b",
    ],
    "methods": ["GET", ["get"], ["TRACE"], ["CONNECT"], [7], [""]],
    "path_prefixes": ["/repos", ["repos"], ["/repos/"], ["//"], ["/a b"], [7]],
    "excluded_paths": ["/repos", ["repos"], [7]],
    "default": [1, "true", None],
    "search_answers": [0, "false", None],
    "credential_headers": ["X-Api-Key", [7], [""]],
    "credential_parameters": ["key", [7], ["a b"]],
    "link_members": ["next", [7], [""]],
    "ca": [7, "", "PRIVATE"],
}  # fmt: skip


@pytest.mark.parametrize(
    "apis",
    [
        None,
        {},
        "rest",
        [1],
        [API, API],
        [API, API | {"default": False}],
        [API, API | {"name": "other"}],
        *[[{name: value for name, value in API.items() if name != gone}] for gone in API],
        *[
            [API | {member: value}]
            for member, values in _NOT_TO_THE_LETTER.items()
            for value in values
        ],
    ],
    ids=str,
)
async def test_apis_that_are_not_to_the_letter_are_no_release(r: Harness, apis: Any) -> None:
    r.authserver.then(lambda: web.json_response(_members() | {"apis": apis}))
    assert (await r.ask()).status == 503
    assert r.metric("tokenward_sidecar_cache_entries") == 0


EXCLUDING = Api(
    "rest", "https://api.example.com", ("GET",), ("/repos", "/user/emails"), True, (), (), (), True,
    excluded_paths=("/repos/*/*/keys", "/**/batch"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "covered"),
    [
        ("/repos", True), ("/repos/o/r", True), ("/repos/o/r/issues", True), ("/repos/", True),
        ("/user/emails", True), ("/repos/o%2Fr/issues", True), ("/repos/o/r/keyset", True),
        ("/repos/o/r/contents/keys", True), ("/repos/keys", True),
        ("/reposx", False), ("/Repos/o", False), ("/user", False), ("/user/emailsx", False),
        ("/graphql", False), ("", False), ("repos", False), ("//repos", False),
        ("/repos/o/r/keys", False), ("/repos/o/r/keys/7", False), ("/repos/o/r/KEYS", False),
        ("/repos/o/r/%6beys", False), ("/repos/o/r/%256beys", False), ("/repos/o/r/ke%79s", False),
        ("/repos/o%2Fr/keys", False), ("/repos/a%2Fb/r/%6Beys", False), ("/repos//o/r/keys", False),
        ("/repos/o/r//keys", False), ("/repos/o/r/keys;x=1", False),
        ("/repos/o/r/keys.json", False),
        ("/repos/o/r%2Fkeys", False), ("/repos/batch", False), ("/repos/o/r/x/batch/y", False),
    ],
)  # fmt: skip
def test_a_path_is_covered_below_a_prefix_and_below_no_excluded_path(
    path: str, covered: bool
) -> None:
    assert EXCLUDING.covers(path) is covered


def test_the_prefix_of_everything_covers_everything_but_what_is_excluded() -> None:
    everything = EXCLUDING._replace(path_prefixes=("/",))
    assert everything.covers("/graphql")
    assert not everything.covers("/repos/o/r/keys")


# What a caller may want.


WISHES: Mapping[str, str] = {
    "missing_scope": "repo admin:org",
    "target_audience": "https://api.example.com",
    "scope": "read",
}


@pytest.mark.parametrize("name", WISHES)
async def test_a_wish_travels_with_the_exchange(r: Harness, name: str) -> None:
    await r.ask({name: WISHES[name]})
    assert r.authserver.received[0].form[name] == WISHES[name]


_NO_WISH: tuple[Any, ...] = (7, None, "", " ", " repo", "repo ", "a  b", "ü", "a\nb", ["repo"], {})
_NO_SCOPE: tuple[Any, ...] = (*_NO_WISH, 'a"b', "a\\b", "a" * 257)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("missing_scope", value) for value in _NO_SCOPE),
        *(("scope", value) for value in _NO_SCOPE),
        *(("target_audience", value) for value in (*_NO_WISH, "a b")),
    ],
)
async def test_a_wish_that_is_not_of_its_form_is_refused(r: Harness, name: str, value: Any) -> None:
    reply = await r.ask({name: value})
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert reply.json["action"] == "fix_request"
    assert not r.authserver.received


@pytest.mark.parametrize("name", WISHES)
async def test_memory_does_not_mix_wishes(r: Harness, name: str) -> None:
    assert (await r.ask()).status == 200
    r.authserver.then(lambda: release(access_token="narrower"))
    assert (await r.ask({name: WISHES[name]})).json["access_token"] == "narrower"
    assert (await r.ask()).json["access_token"] == "upstream-token"
    assert len(r.authserver.received) == 2


async def test_no_order_of_wishes_gets_a_token_of_another_audience_or_scope(r: Harness) -> None:
    random_ = random.Random(8693)
    audiences, scopes = [None, "orders", "billing"], [None, "read", "write", "read write"]
    wishes = [(audience, scope) for audience in audiences for scope in scopes]
    given: dict[tuple[str | None, str | None], str] = {}
    for _ in range(100):
        wish = random_.choice(wishes)
        token = given.setdefault(wish, f"token-{wishes.index(wish)}")
        if len(r.authserver.received) < len(given):
            r.authserver.then(lambda token=token: release(access_token=token))  # type: ignore[misc]
        named = {"target_audience": wish[0], "scope": wish[1]}
        body = {name: value for name, value in named.items() if value is not None}
        assert (await r.ask(body)).json["access_token"] == token
    assert len(r.authserver.received) == len(given) == len(wishes)


async def test_a_missing_scope_is_never_answered_from_memory(r: Harness) -> None:
    for _ in range(2):
        assert (await r.ask({"missing_scope": "repo"})).status == 200
    assert len(r.authserver.received) == 2


async def test_a_scope_to_be_asked_for_comes_with_a_challenge_to_relay(r: Harness) -> None:
    assert (await r.ask()).status == 200
    challenge = "mcp github/repo"
    r.authserver.then(lambda: with_members(403, error="insufficient_scope", scope=challenge))
    reply = await r.ask({"missing_scope": "repo"})
    assert (reply.status, reply.json["error"]) == (403, "insufficient_scope")
    assert (reply.json["scope"], reply.json["action"]) == (challenge, "reauthenticate")
    described = re.escape(reply.json["error_description"])
    assert re.fullmatch(
        rf'Bearer error="insufficient_scope", error_description="{described}", resource_metadata='
        r'"https://github-mcp\.example\.com/\.well-known/oauth-protected-resource/mcp", '
        rf'scope="{challenge}"',
        reply.headers["WWW-Authenticate"],
    )
    assert (
        r.metric("tokenward_sidecar_requests_total", door="hand_out", result="insufficient_scope")
        == 1
    )
    # Others of the same user go on from memory.
    assert (await r.ask()).status == 200
    assert len(r.authserver.received) == 2


async def test_a_challenge_of_a_session_with_offline_access_does_not_name_it(r: Harness) -> None:
    """MCP 2026-07-28: no resource requires it. A client that wants it asks for it by itself."""
    scope = "mcp offline_access github/repo"
    r.authserver.then(lambda: with_members(403, error="insufficient_scope", scope=scope))
    reply = await r.ask({"missing_scope": "repo"})
    assert reply.headers["WWW-Authenticate"].endswith(', scope="mcp github/repo"')
    assert reply.json["scope"] == scope


async def test_a_no_counts_for_the_very_next_call(r: Harness) -> None:
    """The challenge before it is not repeated from memory, or clients would ask again."""
    r.authserver.then(
        lambda: with_members(403, error="insufficient_scope", scope="mcp github/repo")
    )
    assert "WWW-Authenticate" in (await r.ask({"missing_scope": "repo"})).headers
    r.authserver.then(lambda: with_members(403, error="insufficient_scope"))
    for _ in range(2):  # the no itself is remembered for some seconds
        reply = await r.ask({"missing_scope": "repo"})
        assert (reply.status, reply.json["action"]) == (403, "none")
        assert "WWW-Authenticate" not in reply.headers
    assert len(r.authserver.received) == 2


async def test_what_the_user_declined_is_not_asked_for_again(r: Harness) -> None:
    r.authserver.then(lambda: with_members(403, error="insufficient_scope"))
    reply = await r.ask({"missing_scope": "repo"})
    assert (reply.status, reply.json["error"]) == (403, "insufficient_scope")
    assert reply.json["action"] == "none"
    assert "scope" not in reply.json
    assert "WWW-Authenticate" not in reply.headers


@pytest.mark.parametrize("scope", [None, 7, "", 'a"b', "a\r\nX: 1", ["mcp"]])
async def test_a_challenge_that_could_break_a_header_is_not_relayed(r: Harness, scope: Any) -> None:
    r.authserver.then(lambda: with_members(403, error="insufficient_scope", scope=scope))
    reply = await r.ask({"missing_scope": "repo"})
    assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")


async def test_a_403_that_is_not_about_scopes_is_our_own_identity(r: Harness) -> None:
    r.authserver.then(lambda: with_members(403, error="unauthorized_client", scope="mcp"))
    assert (await r.ask()).status == 503


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ("missing_scope", "invalid_request"),
        ("target_audience", "invalid_target"),
        ("scope", "invalid_scope"),
    ],
)
async def test_a_wish_that_the_operator_does_not_permit_ends_there(
    r: Harness, parameter: str, error: str
) -> None:
    r.authserver.then(
        lambda: with_members(400, error=error, error_description="canary", parameter=parameter)
    )
    reply = await r.ask({parameter: WISHES[parameter]})
    assert (reply.status, reply.json["error"]) == (400, "invalid_request")
    assert reply.json["action"] == "none"
    assert b"canary" not in reply.raw
    assert (await r.ask()).status == 200


# Where the user mends it.

LINK = "https://auth.example.com/connect/AbC-_123"


async def test_the_link_that_mends_a_connection_goes_to_the_caller_and_to_no_log(
    r: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="tokenward")
    r.authserver.then(lambda: with_members(400, error="invalid_grant", connect_url=LINK))
    for _ in range(2):  # the second from memory
        reply = await r.ask()
        assert (reply.status, reply.json["error"]) == (401, "reauthentication_required")
        assert reply.json["connect_url"] == LINK
        assert LINK not in reply.headers["WWW-Authenticate"]
    assert len(r.authserver.received) == 1
    for record in caplog.records:
        assert "AbC-_123" not in str(record.__dict__)


async def test_without_a_link_there_is_no_member(r: Harness) -> None:
    r.authserver.then(lambda: with_members(400, error="invalid_grant"))
    assert "connect_url" not in (await r.ask()).json


@pytest.mark.parametrize(
    "url",
    [
        7, "", "javascript:alert(1)", "http://auth.example.com/connect/x", "https://a/b c",
        'https://a/"x', "https://a/<x>", "https://a/\n", "/connect/x", "https://" + "a" * 3000,
        ["https://a/b"],
    ],
)  # fmt: skip
async def test_what_is_no_link_of_ours_goes_no_further(r: Harness, url: Any) -> None:
    r.authserver.then(lambda: with_members(400, error="invalid_grant", connect_url=url))
    reply = await r.ask()
    assert (reply.status, reply.json["error"]) == (401, "reauthentication_required")
    assert "connect_url" not in reply.json


async def test_other_denials_carry_no_link(r: Harness) -> None:
    r.authserver.then(lambda: with_members(400, error="invalid_request", connect_url=LINK))
    assert "connect_url" not in (await r.ask()).json
