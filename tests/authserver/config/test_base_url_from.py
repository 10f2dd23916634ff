"""Base URLs that a token answer names: what `--check` takes, and which values are believed."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from authserver.config.base_url_from import BaseUrlFrom, is_among, origin_of
from authserver.config.notes import notes_of
from authserver.config.upstream_apis import MAX_ANSWERED_BYTES, check_fits_into_an_answer
from authserver.internal.answered_apis import AnsweredApis
from tests.authserver.config.test_upstream_apis import API, OIDC, faults, loaded

HOSTS = ("*.my.salesforce.com",)
FROM: dict[str, Any] = {"member": "instance_url", "hosts": list(HOSTS), "path": "/services/data"}
TOLD = {name: value for name, value in API.items() if name != "baseUrl"} | {"baseUrlFrom": FROM}
ACME = "https://acme.my.salesforce.com"

HOSTILE: list[Any] = [
    # Another scheme, or none.
    "http://acme.my.salesforce.com", "ftp://acme.my.salesforce.com", "//acme.my.salesforce.com",
    "acme.my.salesforce.com", "https:acme.my.salesforce.com", "https:/acme.my.salesforce.com",
    "https:///acme.my.salesforce.com", "javascript:https://acme.my.salesforce.com",
    # User information, and what parsers differ about.
    "https://user@acme.my.salesforce.com", "https://u:p@acme.my.salesforce.com",
    "https://acme.my.salesforce.com@evil.example", "https://evil.example\\@acme.my.salesforce.com",
    "https://evil.example\\.my.salesforce.com", "https://evil.example/.my.salesforce.com",
    "https://evil.example?.my.salesforce.com", "https://evil.example#.my.salesforce.com",
    "https://evil.example;.my.salesforce.com", "https://evil.example%2f.my.salesforce.com",
    "https://evil.example:443.my.salesforce.com", "https://a%2emy.salesforce.com",
    # Ports.
    "https://acme.my.salesforce.com:8443", "https://acme.my.salesforce.com:",
    "https://acme.my.salesforce.com:0443", "https://acme.my.salesforce.com:80",
    "https://acme.my.salesforce.com:99999", "https://acme.my.salesforce.com:443:443",
    # Addresses.
    "https://127.0.0.1", "https://[::1]", "https://[::ffff:127.0.0.1]", "https://2130706433",
    "https://0x7f000001", "https://127.1", "https://10.0.0.1.", "https://169.254.169.254",
    # Other hosts.
    "https://evil.example", "https://my.salesforce.com", "https://evil-my.salesforce.com",
    "https://acme.evilmy.salesforce.com", "https://acme.my.salesforce.com.evil.example",
    "https://a.b.my.salesforce.com", "https://.my.salesforce.com", "https://*.my.salesforce.com",
    "https://-a.my.salesforce.com", "https://a-.my.salesforce.com", "https://a_b.my.salesforce.com",
    "https://a..my.salesforce.com", "https://acme.my.salesforce.com.", "https://localhost",
    "https://acme.my.salesforce.co", "https://acme.my.salesforce.comm", "https://",
    f"https://{'a' * 64}.my.salesforce.com", f"https://{'a.' * 120}my.salesforce.com",
    # Beyond ASCII: IDN, look-alikes, and what is folded to ASCII.
    "https://äcme.my.salesforce.com", "https://acme.my.s\u0430lesforce.com",
    "https://acme。my.salesforce.com", "https://ACME.MY.\u017fALESFORCE.COM",
    "https://acme.my.salesforce.com\u200b", "http\u017f://acme.my.salesforce.com",
    # Paths, queries, fragments.
    "https://acme.my.salesforce.com/services", "https://acme.my.salesforce.com//",
    "https://acme.my.salesforce.com/.", "https://acme.my.salesforce.com?a", "https://a.example/?",
    "https://acme.my.salesforce.com?", "https://acme.my.salesforce.com#",
    "https://acme.my.salesforce.com/#a",
    # Space and control characters.
    " https://acme.my.salesforce.com", "https://acme.my.salesforce.com ",
    "https://a b.my.salesforce.com",
    "https://acme.my.salesforce.com\n", "https://acme.my.salesforce.com/\n",
    "https://acme\t.my.salesforce.com", "https://acme.my.salesforce.com\r\nHost: evil.example",
    "https://acme.my.salesforce.com\0",
    # Other types.
    "", 7, True, [ACME], {"url": ACME}, b"https://acme.my.salesforce.com",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_hostile_value_is_believed_in_no_spelling(value: Any) -> None:
    origin = origin_of(value)
    assert origin is None or not is_among(origin, HOSTS)


@pytest.mark.parametrize(
    "value",
    [
        ACME, f"{ACME}/", f"{ACME}:443", f"{ACME}:443/", "HTTPS://ACME.My.Salesforce.COM",
        "https://Acme.my.salesforce.com/",
    ],
)  # fmt: skip
def test_one_account_has_one_spelling(value: str) -> None:
    assert origin_of(value) == ACME
    assert BaseUrlFrom.model_validate(FROM).base_url([("instance_url", ACME)]) == (
        f"{ACME}/services/data"
    )


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.text("htps:/.@\\#?%[]-*acmeyslfor0123 \tHTPSA", max_size=60),
        st.tuples(
            st.sampled_from(["https://", "HTTPS://", "http://", "https:/\\", ""]),
            st.text("acme.@:/\\-_%*0xA", max_size=20),
            st.sampled_from([".my.salesforce.com", "my.salesforce.com", ".my.salesforce.com.evil"]),
            st.text("/:?#@.43a", max_size=6),
        ).map("".join),
    )
)
def test_what_is_believed_is_one_label_below_the_domain_for_every_parser(value: str) -> None:
    origin = origin_of(value)
    if origin is None or not is_among(origin, HOSTS):
        return
    parts = urlsplit(origin)
    assert origin == f"https://{parts.hostname}"
    label, _, rest = str(parts.hostname).partition(".")
    assert rest == "my.salesforce.com"
    assert label.replace("-", "a").isalnum()
    assert label.isascii()
    assert (parts.port, parts.username, parts.path, parts.query) == (None, None, "", "")
    # And so it is read by a parser that gets the value as it was sent.
    assert urlsplit(value).hostname == parts.hostname


@pytest.mark.parametrize(
    ("origin", "patterns", "among"),
    [
        (ACME, ["*.my.salesforce.com"], True),
        (ACME, ["acme.my.salesforce.com"], True),
        (ACME, ["other.my.salesforce.com"], False),
        (ACME, ["*.other.salesforce.com", "*.my.salesforce.com"], True),
        (ACME, [], False),
        ("https://a.b.my.salesforce.com", ["*.my.salesforce.com"], False),
        ("https://a.b.my.salesforce.com", ["*.*.my.salesforce.com"], True),
        ("https://a.my.salesforce.com", ["*.*.my.salesforce.com"], False),
        ("https://www.zohoapis.eu", ["www.zohoapis.com", "www.zohoapis.eu"], True),
    ],
)
def test_a_star_is_one_whole_label(origin: str, patterns: list[str], among: bool) -> None:
    assert is_among(origin, patterns) is among


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(
            ("hosts", [pattern])
            for pattern in (
                "*", "*.com", "*.*", "*.*.com", "a*.example.com", "*a.example.com",
                "**.example.com",
                "https://*.example.com", "*.example.com:443", "*.example.com/", "*.example.com.",
                "*.Example.com", "*..example.com", ".example.com", "127.0.0.1", "*.0.0.1", "[::1]",
                "2130706433", "u@a.example.com", "*.exämple.com", "*.a_b.example", "", " ",
                "a.*.com", "example.*", f"{'a' * 64}.example.com", f"{'a.' * 127}example.com",
            )
        ),
        ("hosts", []), ("hosts", "*.example.com"), ("hosts", ["a.example.com"] * 2),
        ("hosts", [f"a{number}.example.com" for number in range(33)]),
        *(("member", name) for name in ("", "a.b", "a b", "a/b", "ä", "a" * 65, 7)),
        *(
            ("path", path)
            for path in ("data", "/data/", "/../x", "/a//b", "/%2e%2e", "/a?b", "/a#b", "/a b")
        ),
        ("scheme", "http"),
    ],
    ids=str,
)  # fmt: skip
def test_check_names_the_place_of_a_bad_rule(tmp_path: Path, member: str, value: Any) -> None:
    told = TOLD | {"baseUrlFrom": FROM | {member: value}}
    said = faults(tmp_path, OIDC | {"apis": [API | {"name": "other"}, told]})
    assert said, "not refused"
    assert all(line.startswith(f"upstreams[0].apis[1].baseUrlFrom.{member}") for line in said), said


@pytest.mark.parametrize("gone", ["member", "hosts"])
def test_a_rule_says_member_and_hosts(tmp_path: Path, gone: str) -> None:
    part = {name: value for name, value in FROM.items() if name != gone}
    (line,) = faults(tmp_path, OIDC | {"apis": [TOLD | {"baseUrlFrom": part}]})
    assert line.startswith(f"upstreams[0].apis[0].baseUrlFrom.{gone}")


@pytest.mark.parametrize("both", [True, False])
def test_an_api_has_one_base_url_said_in_one_way(tmp_path: Path, both: bool) -> None:
    bare = {name: value for name, value in API.items() if name != "baseUrl"}
    (line,) = faults(tmp_path, OIDC | {"apis": [TOLD | API if both else bare]})
    assert line.startswith("upstreams[0].apis[0]: needs either baseUrl, or baseUrlFrom")


def test_the_operators_base_url_stands_in_place_of_the_presets(tmp_path: Path) -> None:
    def api_of(**written: Any) -> Any:
        upstream = {"preset": "salesforce", "clientId": "x"}
        apis = [{"name": "rest"} | written]
        (api,) = loaded(tmp_path, upstream | {"apis": apis}).upstreams[0].apis
        return api

    assert api_of().base_url_from.hosts == ("*.my.salesforce.com", "*.*.my.salesforce.com")
    fixed = api_of(baseUrl=ACME)
    assert (fixed.base_url, fixed.base_url_from) == (ACME, None)
    narrower = api_of(baseUrlFrom={"member": "instance_url", "hosts": ["acme.my.salesforce.com"]})
    assert narrower.base_url_from.hosts == ("acme.my.salesforce.com",)


@pytest.mark.parametrize(("path", "noted"), [("/services/data", False), ("/graphql", True)])
def test_check_tells_where_rules_end_below_an_accounts_base_url(
    tmp_path: Path, path: str, noted: bool
) -> None:
    told = TOLD | {"baseUrlFrom": FROM | {"path": path}, "pathPrefixes": ["/"]}
    read = loaded(tmp_path, OIDC | {"apis": [told]})
    assert bool(list(notes_of(read))) is noted


def test_room_is_kept_in_an_answer_for_hosts_that_are_not_known_yet() -> None:
    def answered(base_url: str | None) -> list[dict[str, Any]]:
        return [{"base_url": base_url, "ca": "c" * (MAX_ANSWERED_BYTES - 200)}]

    check_fits_into_an_answer(answered("https://a.example"))
    with pytest.raises(ValueError, match="32 KiB"):
        check_fits_into_an_answer(answered(None))


def test_of_two_rules_for_one_member_each_has_its_own_hosts(tmp_path: Path) -> None:
    other = TOLD | {"name": "other", "baseUrlFrom": FROM | {"hosts": ["www.example.com"]}}
    upstreams = loaded(tmp_path, OIDC | {"apis": [TOLD, other]}).upstreams
    assert upstreams[0].account_hosts == {"instance_url": (*HOSTS, "www.example.com")}
    answered = AnsweredApis(upstreams).of("acme", (("instance_url", ACME),))
    assert b'"base_url":"https://acme.my.salesforce.com/services/data"' in bytes(answered.apis)
    assert bytes(answered.without_base_url or b"") == b'[{"name":"other","default":false}]'


def test_a_value_that_was_stored_under_other_patterns_is_not_called() -> None:
    rule = BaseUrlFrom.model_validate(FROM | {"hosts": ["other.my.salesforce.com"]})
    assert rule.base_url([("instance_url", ACME)]) is None
    assert rule.base_url([("api_domain", "https://other.my.salesforce.com")]) is None
    assert rule.base_url([]) is None
    with pytest.raises(ValidationError):
        rule.hosts = HOSTS
