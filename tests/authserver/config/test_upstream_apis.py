"""APIs, release and step-up scopes in the configuration file, as `--check` sees them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from authserver.__main__ import main
from authserver.config.loader import load
from authserver.config.preset_apis import PRESET_APIS
from authserver.config.provider_presets import PRESETS
from authserver.config.settings import Settings
from authserver.internal.answered_apis import AnsweredApis
from chassis.process import ConfigurationError
from demo.pki import CertificateAuthority
from tests.support.deployment import NOTES, configuration_of
from tests.support.deployment import write_material as material

API: dict[str, Any] = {
    "name": "rest",
    "baseUrl": "https://api.example.com/v1",
    "methods": ["GET"],
    "pathPrefixes": ["/repos"],
}


def written(folder: Path, *, upstream: dict[str, Any], **changes: Any) -> Path:
    """A configuration file whose first upstream, `acme`, has these members."""
    authority = CertificateAuthority.create("all")
    material(folder, authority, authority)
    configuration = configuration_of(folder, "http://127.0.0.1:1", "http://127.0.0.1:2")
    acme = {"name": "acme", "clientId": "x"}
    file = folder / "authserver.yaml"
    file.write_text(yaml.safe_dump(configuration | {"upstreams": [acme | upstream]} | changes))
    return file


def loaded(folder: Path, upstream: dict[str, Any], **changes: Any) -> Settings:
    return load(written(folder, upstream=upstream, **changes))


def faults(folder: Path, upstream: dict[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as bad:
        load(written(folder, upstream=upstream, **changes))
    return [str(fault) for fault in bad.value.faults]


OIDC = {"type": "oidc", "issuer": "https://id.example.com"}


def resource(**changes: Any) -> dict[str, Any]:
    workload = {"namespace": "mcp-servers", "name": "notes"}
    entry = {"resource": NOTES, "workload": workload, "upstreams": ["acme"]}
    return {"resources": [entry | changes]}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(
            ("baseUrl", url)
            for url in (
                "http://api.example.com", "https://127.0.0.1", "https://[::1]:8443",
                "https://2130706433", "https://0x7f000001", "https://127.1", "https://*.example.com",
                "https://user@api.example.com", "https://u:p@api.example.com", "https://a.example/?q",
                "https://a.example/#f", "https://a.example/v1/", "https://a.example/../x",
                "https://a.example/%2e%2e", "https://a.example//x", "https://A.example",
                "https://a.example:99999", "https://", "ftp://a.example", "https://a.example\\@b",
                "https://a.example/*", "https://a..example", "https://a.example.",
            )
        ),
        *(("methods", bad) for bad in ([], ["TRACE"], ["CONNECT"], ["get"], ["GET "], "GET")),
        *(
            ("pathPrefixes", [bad])
            for bad in (
                "", "repos", "/repos/", "//repos", "/a/../b", "/a/./b", "/%2e%2e/x", "/a b", "/a?b",
                "/a#b", "/a\\b", "/a;b", "/*", "/a/*/b",
            )
        ),
        ("pathPrefixes", []),
        ("excludedPaths", ["keys"]), ("excludedPaths", ["/a/***"]), ("excludedPaths", ["/a/../b"]),
        ("name", "Rest"), ("name", "a/b"), ("name", ".."), ("name", ""),
        ("credentialHeaders", ["X Api"]), ("credentialHeaders", ["X:"]),
        ("credentialParameters", ["a b"]), ("linkMembers", [""]), ("default", "often"),
        ("unknown", 1),
        ("missingScope", {"headers": {"accepted": "X-Scopes"}}),
        ("missingScope", {"headers": {"accepted": "X Scopes", "granted": "X"}}),
        ("missingScope", {"members": {"status": 500, "error": "e", "value": "v", "scopes": "s"}}),
        ("missingScope", {"members": {"status": 200, "error": "e", "value": "v"}}),
        ("missingScope", {"unknown": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_api_is_named_with_its_place(tmp_path: Path, member: str, value: Any) -> None:
    said = faults(tmp_path, OIDC | {"apis": [API, API | {"name": "other", member: value}]})
    assert all(line.startswith(f"upstreams[0].apis[1].{member}") for line in said), said


@pytest.mark.parametrize("gone", API)
def test_an_api_says_everything_that_decides(tmp_path: Path, gone: str) -> None:
    part = {name: value for name, value in API.items() if name != gone}
    assert any(gone in line for line in faults(tmp_path, OIDC | {"apis": [part]}))


def test_names_and_the_default_are_unique(tmp_path: Path) -> None:
    said = faults(tmp_path, OIDC | {"apis": [API, API]})
    assert said == ["upstreams[0].apis: rest: stands here twice"]
    both = [API | {"default": True}, API | {"default": True, "name": "other"}]
    (line,) = faults(tmp_path, OIDC | {"apis": both})
    assert "at most one API is the default" in line


def test_authorities_that_no_sidecar_would_read_are_a_fault(tmp_path: Path) -> None:
    pem = CertificateAuthority.create("many").certificate_pem
    (tmp_path / "many.pem").write_bytes(pem * 60)
    with_apis = OIDC | {"caFile": "many.pem", "apis": [API]}
    assert any("32 KiB" in line for line in faults(tmp_path, with_apis))
    assert loaded(tmp_path, OIDC | {"caFile": "many.pem"}).upstreams[0].apis == ()


@pytest.mark.parametrize("preset", PRESET_APIS)
def test_a_presets_apis_hold_and_may_be_narrowed(tmp_path: Path, preset: str) -> None:
    upstream: dict[str, Any] = {"preset": preset, "clientId": "x"}
    if preset == "microsoft":
        upstream["issuer"] = "https://login.microsoftonline.com/tenant/v2.0"
    if preset == "slack":
        upstream["scopes"] = ["search:read"]
    whole = loaded(tmp_path, upstream).upstreams[0].apis
    assert [api.name for api in whole] == [api["name"] for api in PRESET_APIS[preset]]
    first = whole[0]
    narrowed = [{"name": first.name, "methods": ["GET"]}]
    (api,) = loaded(tmp_path, upstream | {"apis": narrowed}).upstreams[0].apis
    assert api == first.model_copy(update={"methods": ("GET",)})
    assert loaded(tmp_path, upstream | {"apis": []}).upstreams[0].apis == ()


def test_every_preset_with_apis_is_a_preset() -> None:
    assert PRESET_APIS.keys() <= PRESETS.keys()


# What is never below a preset's prefix, or is excluded: GraphQL, batches, and what mints or echoes.
_OUTSIDE: dict[str, list[str]] = {
    "rest": [
        "/graphql", "/applications/x/token", "/app/installations/1/access_tokens", "/user/keys",
        "/repos/o/r/keys", "/repositories/1/keys", "/repos/o/r/actions/runners/registration-token",
        "/orgs/o/actions/runners/registration-token", "/repos/o/r/actions/secrets/public-key",
        "/repos/o/r/tarball/main", "/repos/o/r/zipball/main", "/repos/o/r/actions/runs/1/logs",
        "/repos/o/r/actions/artifacts/1/zip", "/feeds", "/repos/o/r/hooks", "/user/codespaces",
        "/orgs/o/personal-access-tokens", "/repos/o/r/%6beys", "/repos/o%2Fr/keys",
    ],
    "drive": ["/batch/drive/v3", "/oauth2/v3/tokeninfo", "/drive/v2/files"],
    "gmail": ["/batch/gmail/v1", "/batch"],
    "calendar": ["/batch/calendar/v3", "/drive/v3/files"],
    "graph": [
        "/v1.0/$batch", "/beta/$batch", "/v1.0/applications/x/addPassword",
        "/v1.0/me/authentication/temporaryAccessPassMethods", "/v1.0/me/drive/items/1/content",
        "/v1.0/me/drive/items/1/createLink", "/v1.0/me/drive/root:/a/b:/createUploadSession",
        "/v1.0/me/$batch",
    ],
    "web": [
        "/oauth.v2.access", "/oauth.v2.exchange", "/tooling.tokens.rotate", "/auth.test",
        "/apps.connections.open", "/rtm.connect", "/files.getUploadURLExternal",
    ],
    "v4": [
        "/graphql", "/user/keys", "/users/1/impersonation_tokens", "/projects/1/access_tokens",
        "/projects/g%2Fp/deploy_tokens", "/projects/1/variables/KEY", "/groups/1/runners",
        "/projects/1/triggers", "/personal_access_tokens", "/runners", "/admin/ci/variables",
    ],
    "rest of notion": [
        "/v1/oauth/token", "/v1/oauth/introspect", "/v1/oauth/revoke", "/v1/file_uploads",
        "/v2/pages",
    ],
    "rest of salesforce": [
        "/services/oauth2/token", "/services/oauth2/introspect", "/services/data",
        "/services/data/v68.0/composite", "/services/data/v68.0/composite/batch",
        "/services/data/v68.0/graphql", "/services/data/v68.0/jobs/ingest",
        "/services/data/v68.0/tooling/executeAnonymous", "/services/apexrest/x",
        "/services/data/v68.0/sobjects/User/005/password", "/services/async/68.0/job",
        "/services/data/v68.0/sobjects/SelfServiceUser/1/password",
        "/services/data/v68.0/sobjects/User/Name/x/password", "/services/Soap/u/68.0",
        "/services/data/v68.0/sobjects/apexclass/01p", "/secur/frontdoor.jsp",
        "/services/data/v68.0/sobjects/ContentDistribution", "/services/data/v9.0/sobjects",
    ],
    "cloud": [
        "/graphql", "/oauth/token", "/gateway/api/graphql", "/ex/jira/1/gateway/api/graphql",
    ],
}  # fmt: skip
_INSIDE: dict[str, list[str]] = {
    "rest": ["/user", "/repos/o/r", "/repos/o/hooks", "/repositories/1/issues", "/search/issues"],
    "drive": ["/drive/v3/files", "/upload/drive/v3/files"],
    "gmail": ["/gmail/v1/users/me/messages"],
    "calendar": ["/calendar/v3/calendars/primary/events"],
    "graph": ["/v1.0/me", "/v1.0/me/messages", "/v1.0/sites/x/lists"],
    "web": ["/chat.postMessage", "/conversations.list"],
    "v4": ["/user", "/projects/g%2Fp/issues", "/groups/1/projects", "/merge_requests"],
    "rest of notion": ["/v1/users/me", "/v1/pages/1", "/v1/search", "/v1/data_sources/1/query"],
    "rest of salesforce": [
        "/services/data/v60.0/query",
        "/services/data/v60.0/query/01g000-2000",
        "/services/data/v68.0/sobjects/Account/001",
        "/services/data/v50.0/limits",
    ],
    "cloud": ["/oauth/token/accessible-resources", "/ex/jira/1/rest/api/3/search"],
}


def test_presets_leave_out_what_would_get_round_them_or_give_a_credential(tmp_path: Path) -> None:
    from sidecar.apis import read_apis

    for preset, entries in PRESET_APIS.items():
        upstream: dict[str, Any] = {"preset": preset, "clientId": "x"}
        if preset == "microsoft":
            upstream["issuer"] = "https://login.microsoftonline.com/tenant/v2.0"
        said = (("instance_url", "https://acme.my.salesforce.com"),)
        of_account = AnsweredApis(loaded(tmp_path, upstream).upstreams).of("acme", said)
        answered = json.loads(bytes(of_account.apis))
        for api in read_apis(answered):
            known = f"{api.name} of {preset}"
            name = known if known in _OUTSIDE else api.name
            outside = [path for path in _OUTSIDE[name] if api.covers(path)]
            inside = [path for path in _INSIDE[name] if not api.covers(path)]
            assert (outside, inside) == ([], []), api.name
        assert len(answered) == len(entries)


def test_an_answer_says_which_scopes_the_user_may_be_asked_for(tmp_path: Path) -> None:
    upstream = {"preset": "github", "clientId": "x", "scopes": ["gist"], "stepUpScopes": ["repo"]}
    (api,) = loaded(tmp_path, upstream).upstreams[0].answered_apis()
    assert api["missing_scope"] == {
        "any_of": True,
        "headers": {"accepted": "X-Accepted-OAuth-Scopes", "granted": "X-OAuth-Scopes"},
        "askable": ["gist", "repo"],
    }
    without = {"preset": "github", "clientId": "x", "scopes": []}
    (api,) = loaded(tmp_path, without).upstreams[0].answered_apis()
    assert "missing_scope" not in api


# What an operator is told although nothing is wrong.


@pytest.mark.parametrize(
    ("api", "noted"),
    [
        ({"pathPrefixes": ["/repos"]}, False),
        ({"pathPrefixes": ["/repos", "/graphql"]}, True),
        ({"pathPrefixes": ["/v1.0/$batch"]}, True),
        ({"pathPrefixes": ["/GraphQL"]}, True),
        ({"pathPrefixes": ["/oauth/token"]}, True),
        ({"pathPrefixes": ["/"]}, False),  # below /v1 of the base URL
        ({"pathPrefixes": ["/"], "baseUrl": "https://api.example.com"}, True),
        ({"pathPrefixes": ["/"], "baseUrl": "https://api.example.com/graphql"}, True),
    ],
    ids=str,
)
def test_check_tells_where_rules_of_method_and_path_end(
    tmp_path: Path,
    api: dict[str, Any],
    noted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = written(tmp_path, upstream=OIDC | {"apis": [API | api]})
    monkeypatch.setattr("sys.argv", ["authserver", "--config", str(file), "--check"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert ("note: upstreams[0].apis[0].pathPrefixes: " in said) is noted
    assert ("rules of method and path end" in said) is noted


def test_no_preset_needs_a_note(tmp_path: Path) -> None:
    from authserver.config.notes import notes_of

    for preset in PRESET_APIS:
        upstream: dict[str, Any] = {"preset": preset, "clientId": "x"}
        if preset == "microsoft":
            upstream["issuer"] = "https://login.microsoftonline.com/tenant/v2.0"
        assert list(notes_of(loaded(tmp_path, upstream))) == []


# Resources.


def test_a_resource_names_its_upstreams_by_name_or_with_more(tmp_path: Path) -> None:
    acme = OIDC | {"name": "acme", "clientId": "x"}
    settings = loaded(
        tmp_path,
        {},
        upstreams=[acme, acme | {"name": "files"}, acme | {"name": "chat"}],
        **resource(
            upstreams=["acme", {"name": "files", "connect": "WhenNeeded"}, {"name": "chat"}],
            release=["Attach"],
        ),
    )
    entry = settings.resources[0].entry()
    assert entry.upstreams == ("acme", "files", "chat")
    assert entry.at_sign_in == ("acme", "chat")
    assert (entry.when_needed, entry.release) == (frozenset({"files"}), ("Attach",))


def test_by_default_both_uses_are_permitted(tmp_path: Path) -> None:
    assert loaded(tmp_path, OIDC).resources[0].entry().release == ("HandOut", "Attach")


@pytest.mark.parametrize(
    ("changes", "place", "problem"),
    [
        ({"release": []}, "resources[0].release", ""),
        ({"release": ["Handout"]}, "resources[0].release[0]", "HandOut"),
        ({"release": ["Attach", "Attach"]}, "resources[0].release", "twice"),
        ({"release": "Attach"}, "resources[0].release", ""),
        (
            {"upstreams": [{"name": "acme", "connect": "WhenNeeded"}]},
            "resources[0].upstreams",
            "names the user",
        ),
        ({"upstreams": [{"name": "acme", "connect": "Later"}]}, "resources[0].upstreams[0]", ""),
        ({"upstreams": [{"connect": "WhenNeeded"}]}, "resources[0].upstreams[0].name", ""),
        ({"upstreams": ["acme", "acme"]}, "resources[0].upstreams", "twice"),
        ({"upstreams": [{"name": "nobody"}]}, "resources[0].upstreams[0]", "no upstream"),
        ({"upstreams": [7]}, "resources[0].upstreams[0]", ""),
        ({"upstreams": [{"name": "acme", "extra": 1}]}, "resources[0].upstreams[0].extra", ""),
    ],
    ids=str,
)
def test_a_bad_resource_is_named_with_its_place(
    tmp_path: Path, changes: dict[str, Any], place: str, problem: str
) -> None:
    said = faults(tmp_path, OIDC, **resource(**changes))
    assert any(line.startswith(place) and problem in line for line in said), said


@pytest.mark.parametrize("scope", ["a b", "", 'a"b'])
def test_a_step_up_scope_is_a_scope(tmp_path: Path, scope: str) -> None:
    (line,) = faults(tmp_path, OIDC | {"stepUpScopes": [scope]})
    assert line.startswith("upstreams[0].stepUpScopes[0]")
