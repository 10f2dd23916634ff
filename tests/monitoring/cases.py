"""For each alert: series that cause it and series that must not, in promtool's notation.

Values are one a minute from the Unix epoch on; `0x10 0+1x60` is ten minutes of nothing and then
one more every minute. Before `silent_until` the alert does not fire, at `fires_by` it does: both
follow from its threshold, its range and its `for`.
"""

from dataclasses import dataclass, field
from typing import Final

_FROM_11 = "0x10 1+1x60"
_POD: Final = {"namespace": "tokenward-system", "pod": "p-0"}


@dataclass(frozen=True)
class Case:
    """`labels` are those of the firing alert, beside its severity."""

    series: dict[str, str]
    silent_until: str
    fires_by: str
    quiet: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)


def _of_pod(metric: str, **labels: str) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in {**labels, **_POD}.items())
    return f"{metric}{{{pairs}}}"


def _denials(reason: str) -> str:
    return _of_pod("tokenward_authserver_denials_total", reason=reason)


def _refreshes(result: str) -> str:
    return _of_pod("tokenward_authserver_upstream_refresh_total", upstream="github", result=result)


def _logins(outcome: str) -> str:
    return _of_pod("tokenward_authserver_upstream_logins_total", upstream="github", outcome=outcome)


def _refused(reason: str) -> str:
    return _of_pod("tokenward_sidecar_refused_jwts_total", reason=reason)


_UP = {"job": "tokenward-system/tokenward", "container": "webhook", **_POD}
_REJECTIONS = (
    'apiserver_admission_webhook_rejection_count{name="pods.tokenward.dev",error_type="%s"}'
)
# An hour more than a week, and a year.
_WEEK, _YEAR = f"{7 * 86400 + 3600}x180", f"{365 * 86400}x180"
_OLDEST = "tokenward_authserver_upstream_revocations_oldest_timestamp_seconds"
_REVIEWS = "tokenward_webhook_request_duration_seconds_bucket"

CASES: Final = {
    "TokenwardTargetDown": Case(
        {_of_pod("up", job=_UP["job"], container="webhook"): "1x10 0x60"}, "15m", "17m",
        {_of_pod("up", job="another", container="webhook"): "0x90"}, _UP,
    ),
    "TokenwardWebhookCertificateEnding": Case(
        {_of_pod("tokenward_webhook_serving_cert_expiry_timestamp_seconds"): _WEEK},
        "120m", "123m",
        {_of_pod("tokenward_webhook_serving_cert_expiry_timestamp_seconds"): _YEAR}, _POD,
    ),
    "TokenwardWebhookFailing": Case(
        {_of_pod("tokenward_webhook_decisions_total", decision="error", reason="failed"): _FROM_11},
        "15m", "17m",
        {_of_pod("tokenward_webhook_decisions_total", decision="denied", reason="x"): _FROM_11},
    ),
    "TokenwardWebhookConfigurationRefused": Case(
        {_of_pod("tokenward_webhook_config_reloads_total", result="failure"): "0x10 1x60"},
        "10m", "12m",
        {_of_pod("tokenward_webhook_config_reloads_total", result="success"): _FROM_11},
        {"result": "failure", **_POD},
    ),
    "TokenwardWebhookUnreachable": Case(
        {_REJECTIONS % "calling_webhook_error": _FROM_11}, "15m", "17m",
        {_REJECTIONS % "no_error": _FROM_11},  # the webhook's own denials
    ),
    "TokenwardWebhookSlow": Case(
        {
            _of_pod(_REVIEWS, le="0.25"): "0+98x60",
            _of_pod(_REVIEWS, le="0.5"): "0+100x60",
            _of_pod(_REVIEWS, le="+Inf"): "0+100x60",
        }, "9m", "13m",
        {
            _of_pod(_REVIEWS, le="0.25"): "0+100x60",
            _of_pod(_REVIEWS, le="0.5"): "0+100x60",
            _of_pod(_REVIEWS, le="+Inf"): "0+100x60",
        },
    ),
    "TokenwardAuthserverCertificateEnding": Case(
        {
            _of_pod("tokenward_authserver_serving_cert_expiry_timestamp_seconds",
                    listener="internal"): _WEEK,
        }, "120m", "123m",
        {
            _of_pod("tokenward_authserver_serving_cert_expiry_timestamp_seconds",
                    listener="internal"): _YEAR,
        }, {"listener": "internal", **_POD},
    ),
    "TokenwardCredentialRefused": Case(
        {_of_pod("tokenward_credential_reloads_total", result="failed"): "0x10 1x60"}, "10m", "12m",
        {_of_pod("tokenward_credential_reloads_total", result="ok"): _FROM_11},
        {"result": "failed", **_POD},
    ),
    "TokenwardClientCAExpired": Case(
        {_of_pod("tokenward_expired_cas"): "0x10 1x120"}, "70m", "72m",
        {_of_pod("tokenward_expired_cas"): "0x120"}, _POD,
    ),
    "TokenwardAuthserverConfigurationRefused": Case(
        {_of_pod("tokenward_authserver_config_reloads_total", result="refused"): "0x10 1x60"},
        "10m", "12m",
        {_of_pod("tokenward_authserver_config_reloads_total", result="taken"): _FROM_11},
        {"result": "refused", **_POD},
    ),
    "TokenwardStorageDown": Case(
        {_denials("storage_down"): _FROM_11}, "15m", "17m", {_denials("jwt_expired"): _FROM_11},
    ),
    "TokenwardAuditLost": Case(
        {_denials("audit_lost"): "0x10 1x60"}, "10m", "12m", {_denials("jwt_expired"): _FROM_11},
        {"reason": "audit_lost", **_POD},
    ),
    "TokenwardSealedRecordsUnreadable": Case(
        {_denials("seal_broken"): "0x10 1x60"}, "10m", "12m", {_denials("jwt_expired"): _FROM_11},
        {"reason": "seal_broken", **_POD},
    ),
    "TokenwardWorkloadRefused": Case(
        {_denials("certificate_denied"): _FROM_11}, "25m", "27m",
        {_denials("certificate_denied"): "0x10 1x60"},  # once
        {"reason": "certificate_denied"},
    ),
    "TokenwardUpstreamRefreshFailing": Case(
        {_refreshes("unavailable"): "0x10 2+2x60", _refreshes("refreshed"): "0+1x70"}, "20m", "32m",
        {_refreshes("unavailable"): "0+1x70", _refreshes("refreshed"): "0+3x70"},
        {"upstream": "github"},
    ),
    "TokenwardGrantsEnding": Case(
        {_refreshes("dead"): "0x60 1+1x120", _refreshes("refreshed"): "0+2x180"}, "80m", "120m",
        {_refreshes("dead"): "0+1x180", _refreshes("refreshed"): "0+9x180"},
        {"upstream": "github"},
    ),
    "TokenwardSignInsFailing": Case(
        {_logins("failed"): "0x10 2+2x60", _logins("success"): "0+1x70"}, "25m", "42m",
        {_logins("failed"): "0+1x70", _logins("success"): "0+2x70"},
        {"upstream": "github"},
    ),
    "TokenwardUpstreamRevocationsPending": Case(
        {_of_pod(_OLDEST, upstream="github"): "0x120"}, "70m", "72m",
        # Many wait, and each only for a moment.
        {_of_pod(_OLDEST, upstream="github"): "0+60x120"}, {"upstream": "github"},
    ),
    "TokenwardCredentialEnding": Case(
        {_of_pod("tokenward_credential_expiry_timestamp_seconds"): "7200x120"}, "70m", "72m",
        {_of_pod("tokenward_credential_expiry_timestamp_seconds"): "43200x120"}, _POD,
    ),
    "TokenwardRevocationFeedDown": Case(
        {_of_pod("tokenward_sidecar_revocation_feed_up"): "1x10 0x60"}, "20m", "22m",
        {_of_pod("tokenward_sidecar_revocation_feed_up"): "1x90"}, _POD,
    ),
    "TokenwardSidecarDoesNotFit": Case(
        {_refused("jwt_for_another_resource"): _FROM_11}, "25m", "27m",
        {_refused("jwt_expired"): _FROM_11}, _POD,
    ),
    "TokenwardControllerWithoutLeader": Case(
        {'tokenward_controller_leader{pod="a"}': "1x10 0x60",
         'tokenward_controller_leader{pod="b"}': "0x70"}, "12m", "14m",
        {'tokenward_controller_leader{pod="a"}': "1x10 0x60",
         'tokenward_controller_leader{pod="b"}': "0x10 1x60"},
    ),
    "TokenwardControllerFailing": Case(
        {_of_pod("tokenward_controller_reconciles_total", kind="MCPServerAuth", result="error"):
         _FROM_11}, "25m", "27m",
        {_of_pod("tokenward_controller_reconciles_total", kind="MCPServerAuth", result="ok"):
         _FROM_11}, {"kind": "MCPServerAuth"},
    ),
    "TokenwardWorkloadCertificateNotRenewed": Case(
        {_of_pod("tokenward_controller_soonest_certificate_expiry_timestamp_seconds"):
         "18000x120"}, "70m", "72m",
        # A replica that does not lead, or one without certificates in Secrets.
        {_of_pod("tokenward_controller_soonest_certificate_expiry_timestamp_seconds"): "0x120"},
        _POD,
    ),
}  # fmt: skip
# The same alert by another way: the last controller is gone, and with it the metric.
GONE: Final = Case(
    {'tokenward_controller_leader{pod="a"}': "1x10"}, "16m", "25m", {"other": "1x90"}
)
