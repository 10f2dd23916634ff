"""The annotation contract: what a pod may say, and what it is told where it says something else."""

import pytest

from tests.webhook.pods import environment, injected, pod, settings, sidecar_of, verdict
from webhook.annotations import PUBLIC, STATUS
from webhook.reasons import MAX_DENIAL, Reason, Violation, denial


@pytest.mark.parametrize("value", ["yes", "True", "1", "", " true", "true\n", "TRUE", "on"])
def test_anything_but_true_and_false_is_denied_with_both_named(value: str) -> None:
    told = verdict(pod({"inject": value}))
    assert told.reason is Reason.BAD_VALUE
    assert "allowed: true, false" in told.message


def test_a_value_close_to_an_allowed_one_is_suggested() -> None:
    assert "did you mean true?" in verdict(pod({"inject": "True"})).message
    assert "did you mean warning?" in verdict(pod({"log-level": "warn"})).message


def test_an_unknown_key_is_denied_with_a_suggestion_and_every_allowed_key() -> None:
    told = verdict(pod({"sevrer": "x"}))
    assert told.reason is Reason.UNKNOWN_KEY
    assert "did you mean tokenward.dev/server?" in told.message
    for key in PUBLIC:
        assert key.removeprefix("tokenward.dev/") in told.message


def test_a_setting_written_as_a_label_is_denied() -> None:
    told = verdict(pod(labels={"tokenward.dev/server": "x"}))
    assert told.reason is Reason.UNKNOWN_KEY
    assert "settings are annotations" in told.message


def test_every_fault_is_named_at_once() -> None:
    told = verdict(
        pod({"inject": "yes", "port": "80", "prot": "1", "cpu-limit": "lots"}, hostNetwork=True)
    )
    assert len(told.refusals) == 5
    for part in ('inject is "yes"', 'port is "80"', "prot", 'cpu-limit is "lots"', "hostNetwork"):
        assert part in told.message


@pytest.mark.parametrize(
    "key",
    [
        "image", "agent-image", "secret", "volume", "ca", "authserver-url", "env", "env-FOO",
        "mount-path", "run-as-user", "json-patch", "identity", "command",
    ],
)  # fmt: skip
def test_no_annotation_names_an_image_secret_volume_ca_url_or_variable(key: str) -> None:
    told = verdict(pod({key: "https://attacker.example"}))
    assert (told.decision, told.reason) == ("denied", Reason.UNKNOWN_KEY)


@pytest.mark.parametrize(
    "value",
    [
        "ns/name", "../x", "Upper", "a" * 64, "", "-a", "a-", "a.b", "a b", "a\n", "a\\u0000",
        "ü", "a~1b", '{"a":1}', "a: b", "$(X)",
    ],
)  # fmt: skip
def test_a_server_is_a_name_of_the_pods_own_namespace_and_nothing_else(value: str) -> None:
    told = verdict(pod({"server": value}))
    assert told.reason is Reason.BAD_VALUE


@pytest.mark.parametrize(
    "value",
    [
        "mcp.example.com", "ftp://x.example", "https://", "https://x.example/#a", "/mcp",
        "https://user@x.example/", "https://x.example/a b", "https://x.example/\n",
        'https://x.example/"', "https://x.example:99999/", "https://x.example/" + "a" * 2048,
        "https://x.example/\\u0000", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_a_resource_is_an_absolute_web_url(value: str) -> None:
    assert verdict(pod({"resource": value})).reason is Reason.BAD_VALUE


@pytest.mark.parametrize("value", ["https://mcp.example.com/mcp", "http://mcp.svc:8080/mcp?x=1"])
def test_the_resource_reaches_the_sidecar_as_written(value: str) -> None:
    container = sidecar_of(injected(pod({"resource": value})))
    assert environment(container)["TOKENWARD_RESOURCE"] == value


@pytest.mark.parametrize(
    "value",
    ["0", "80", "1023", "65536", "-1", "15500.0", "0x3c", "\uff11\uff15\uff15\uff10\uff10", ""],
)
def test_a_port_nobody_can_bind_is_denied(value: str) -> None:
    assert verdict(pod({"port": value})).reason is Reason.BAD_VALUE
    assert verdict(pod({"ops-port": value})).reason is Reason.BAD_VALUE


def test_both_ports_must_differ() -> None:
    assert "must differ" in verdict(pod({"port": "15501"})).message


def test_a_container_both_chosen_and_skipped_is_denied() -> None:
    told = verdict(pod({"containers": "app", "skip-containers": "app"}))
    assert "both name" in told.message


@pytest.mark.parametrize("value", ["", ",", "a,,b", "a;b", "A", "a\nb"])
def test_a_list_of_containers_is_names_and_commas(value: str) -> None:
    assert verdict(pod({"skip-containers": value})).reason is Reason.BAD_VALUE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpu-limit", "10000000000"), ("cpu-limit", "49m"), ("cpu-request", "501m"),
        ("memory-limit", "1Gi"), ("memory-request", "1Mi"), ("memory-limit", "96MiB"),
        ("cpu-request", "-1m"), ("cpu-request", "1e99"), ("cpu-request", "nan"),
        ("memory-limit", ""), ("cpu-request", "10 m"),
    ],
)  # fmt: skip
def test_an_amount_outside_the_profiles_bounds_is_denied_with_the_bounds(
    key: str, value: str
) -> None:
    told = verdict(pod({key: value}))
    assert told.reason is Reason.BAD_VALUE
    assert " to " in told.message


def test_an_unknown_profile_is_denied_with_the_known_ones() -> None:
    told = verdict(pod({"profile": "smal"}), settings(profiles={"default": {}, "small": {}}))
    assert "did you mean small? allowed: default, small" in told.message


def test_a_profile_brings_its_own_bounds() -> None:
    wide = {"min": "1m", "default": "10m", "max": "4"}
    under = settings(profiles={"default": {}, "wide": {"cpuLimit": wide}})
    found = injected(pod({"profile": "wide", "cpu-limit": "3"}), under)
    assert sidecar_of(found)["resources"]["limits"]["cpu"] == "3"


@pytest.mark.parametrize("size", [1_000, 262_144])
def test_a_huge_value_with_control_characters_gives_a_short_escaped_denial(size: int) -> None:
    told = verdict(pod({"log-level": "x\n\x1b[31m\u202e" * size}))
    assert len(told.message.encode()) <= 1024
    assert told.message.isprintable()
    assert told.message.isascii()


def test_many_faults_fit_into_one_kibibyte_and_the_rest_is_counted() -> None:
    told = verdict(pod({f"unknown-{at}": "x" for at in range(50)}))
    assert len(told.message) <= 1024
    assert "more" in told.message


def test_what_only_the_webhook_writes_is_refused_from_users() -> None:
    for key in ("status", "authserver-ca"):
        told = verdict(pod({key: "{}"}))
        assert told.reason is Reason.RESERVED_KEY
    told = verdict(pod(labels={"tokenward.dev/injected": "true"}))
    assert told.reason is Reason.RESERVED_KEY
    assert STATUS not in PUBLIC


def test_a_denial_is_cut_even_if_its_only_fault_is_too_long() -> None:
    assert len(denial([Violation(Reason.BAD_VALUE, "x" * 5000)])) == MAX_DENIAL
