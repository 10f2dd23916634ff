"""MCPAuthServer as a pure plan: what is made of one object, and what its status says."""

import json
from base64 import b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from authserver.config import check_report
from chassis.process import ConfigProblem
from controller.api.auth_server import AuthServer
from controller.api.objects import Object, path
from controller.reconcile import auth_server as reconcile
from controller.reconcile.plan import Plan
from controller.reconcile.surroundings import Observed, Surroundings
from tests.controller.samples import MAKERS, NOW, auth_server_object, condition, stamp

AROUND = Surroundings("tokenward/authserver:dev", "cluster.local", accepted=3)
GITHUB = {"metadata": {"name": "github-app"}, "data": {"secret": b64encode(b"x").decode()}}


class Site:
    """A namespace whose objects are what the last plans made of them."""

    def __init__(self, **spec: Any) -> None:
        self.raw = auth_server_object(**spec)
        self.observed = Observed({"github-app": GITHUB})

    def plan(self, now: datetime = NOW) -> Plan:
        server = AuthServer.of(self.raw)
        return reconcile.plan(server, self.observed, AROUND, now, MAKERS)

    def step(self, now: datetime = NOW) -> Plan:
        """Plan, and put it into force."""
        plan = self.plan(now)
        secrets, maps = dict(self.observed.secrets), dict(self.observed.config_maps)
        jobs = dict(self.observed.jobs)
        by_kind: dict[str, dict[str, Object]] = {"Secret": secrets, "ConfigMap": maps, "Job": jobs}
        for one in (*plan.create, *plan.update, *plan.apply):
            name = one["metadata"]["name"]
            if one["kind"] in by_kind:
                by_kind[one["kind"]][name] = one
            elif one["kind"] == "Deployment":
                self.observed = replace(self.observed, deployment=one)
            elif one["kind"] == "PersistentVolumeClaim":
                self.observed = replace(self.observed, volume_claim=one)
        for one in plan.delete:
            by_kind[one["kind"]].pop(one["metadata"]["name"])
        self.observed = replace(self.observed, secrets=secrets, config_maps=maps, jobs=jobs)
        self.raw["status"] = plan.status
        return plan

    def check(self, outcome: str, said: str = "") -> None:
        """The Job ends; its pod leaves a termination message."""
        ((name, job),) = self.observed.jobs.items()
        ended = {**job, "status": {"conditions": [{"type": outcome, "status": "True"}]}}
        pod = {
            "metadata": {"labels": {"batch.kubernetes.io/job-name": name}},
            "status": {"containerStatuses": [{"state": {"terminated": {"message": said}}}]},
        }
        self.observed = replace(self.observed, jobs={name: ended}, pods=(pod,))

    def installed(self) -> "Site":
        self.step()
        self.check("Complete")
        self.step()
        return self


def kinds(plan: Plan) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in (*plan.create, *plan.apply):
        found.setdefault(one["kind"], []).append(one["metadata"]["name"])
    return found


def test_one_object_becomes_everything_an_authserver_needs() -> None:
    site = Site()
    first = site.step()
    assert condition(first.status, "ConfigurationValid") == ("Unknown", "Checking")
    assert "Deployment" not in kinds(first)
    site.check("Complete")
    second = site.step()
    assert condition(second.status, "ConfigurationValid") == ("True", "Valid")
    assert kinds(second) == {
        "Secret": ["main-internal"],
        "ConfigMap": ["main-workload-authorities", "main-config"],
        "ServiceAccount": ["main"],
        "Deployment": ["main"],
        "Service": ["main", "main-internal"],
        "NetworkPolicy": ["main"],
        "PodDisruptionBudget": ["main"],
    }
    assert kinds(first)["Secret"] == [
        "main-encryption", "main-signing", "main-workloads-authority", "main-servers-authority",
        "main-internal",
    ]  # fmt: skip
    assert first.status["servers"] == 3


def test_nothing_more_is_made_once_everything_is_there() -> None:
    site = Site().installed()
    again = site.plan()
    assert again.create == again.update == ()
    assert {one["kind"] for one in again.apply} == {
        "Secret", "ConfigMap", "ServiceAccount", "Deployment", "Service", "NetworkPolicy",
        "PodDisruptionBudget",
    }  # fmt: skip
    secret = next(one for one in again.apply if one["kind"] == "Secret")
    assert secret == site.observed.secrets["main-internal"]
    assert again.again_at is not None


def test_everything_goes_with_its_owner_but_storage_and_keys() -> None:
    site = Site()
    plans = [site.step()]
    site.check("Complete")
    plans.append(site.step())
    for one in (o for plan in plans for o in (*plan.create, *plan.apply)):
        owned = bool(one["metadata"].get("ownerReferences"))
        stays = "tokenward.dev/kept" in one["metadata"].get("annotations", {})
        assert owned != stays, one["metadata"]["name"]
        ours = ("-encryption", "-signing", "-authority")
        kept = one["kind"] == "PersistentVolumeClaim" or one["metadata"]["name"].endswith(ours)
        assert stays == kept


def test_a_bad_configuration_is_said_with_every_fault_and_the_old_one_stays() -> None:
    site = Site().installed()
    before = site.observed.config_maps["main-config"]
    site.raw["spec"]["configuration"] = {"lifetimes": {"accessToken": "1s"}}
    site.step()
    said = "lifetimes.accessToken: must be at least 60\nupstreams[1].scopes: no"
    faults = [ConfigProblem(*line.split(": ", 1)) for line in said.splitlines()]
    (job,) = site.observed.jobs.values()
    arguments = path(job, "spec", "template", "spec", "containers")[0]["args"]
    assert arguments[-3:] == ["--check", "--report", "/dev/termination-log"]
    site.check("Failed", check_report.report(faults))
    plan = site.step()
    assert condition(plan.status, "ConfigurationValid") == ("False", "Invalid")
    assert any(said == one["message"] for one in plan.status["conditions"])
    assert site.observed.config_maps["main-config"] == before
    assert "Deployment" not in kinds(plan)
    assert plan.status["phase"] == "Failed"
    # Put right, the former file is in force at once; nothing is checked again.
    site.raw["spec"]["configuration"] = {"logLevel": "info"}
    plan = site.step()
    assert condition(plan.status, "ConfigurationValid") == ("True", "Valid")
    assert site.observed.jobs == {}


@pytest.mark.parametrize(
    "said", ["Traceback", "[]", '{"faults": [{}]}', '{"faults": 1}', '{"faults": [], "more": "x"}']
)
def test_a_check_that_ends_without_a_report_is_said_as_it_is(said: str) -> None:
    site = Site()
    site.step()
    site.check("Failed", said)
    plan = site.step()
    (valid,) = (one for one in plan.status["conditions"] if one["type"] == "ConfigurationValid")
    assert valid["message"] == said


def test_faults_that_do_not_fit_are_counted() -> None:
    faults = [ConfigProblem(f"upstreams[{n}]", "x" * 400) for n in range(100)]
    text = check_report.report(faults)
    assert len(text) < 4096  # bytes that a kubelet keeps
    site = Site()
    site.step()
    site.check("Failed", text)
    message = str(site.step().status["conditions"])
    assert "upstreams[0]: xxx" in message
    kept = len(json.loads(text)["faults"])
    assert kept > 5
    assert f"and {100 - kept} more" in message


def test_members_that_need_a_restart_restart_the_pods_and_others_do_not() -> None:
    def restart(site: Site) -> Any:
        deployment = site.observed.deployment
        assert deployment is not None
        return path(deployment, "spec", "template", "metadata", "annotations")

    site = Site().installed()
    before = restart(site)
    site.raw["spec"]["upstreams"][1]["clientId"] = "other"
    site.step()
    site.check("Complete")
    site.step()
    assert restart(site) == before
    site.raw["spec"]["configuration"]["lifetimes"] = {"accessToken": "5m"}
    site.step()
    site.check("Complete")
    site.step()
    assert restart(site) != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "gone", "key": "secret"}, "Secret gone"),
        ({"name": "github-app", "key": "other"}, "member other in Secret github-app"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(change: dict[str, str], said: str) -> None:
    site = Site()
    site.raw["spec"]["upstreams"][0]["clientSecretRef"] = change
    plan = site.plan()
    assert condition(plan.status, "ConfigurationValid") == ("False", "ReferenceMissing")
    assert said in str(plan.status["conditions"])
    assert "Job" not in kinds(plan)


def test_a_lost_encryption_key_is_a_condition_and_nothing_is_made() -> None:
    site = Site().installed()
    secrets = dict(site.observed.secrets)
    del secrets["main-encryption"]
    site.observed = replace(site.observed, secrets=secrets)
    plan = site.plan()
    assert condition(plan.status, "KeysReady") == ("False", "KeyMissing")
    assert condition(plan.status, "Ready") == ("False", "KeyMissing")
    assert plan.create == ()
    assert plan.status["keysMade"]
    assert "Deployment" not in kinds(plan)


def test_a_spoilt_authority_is_a_condition_and_is_not_replaced() -> None:
    site = Site().installed()
    secrets = dict(site.observed.secrets)
    secrets["main-servers-authority"] = {**secrets["main-servers-authority"], "data": {}}
    site.observed = replace(site.observed, secrets=secrets)
    plan = site.plan()
    assert condition(plan.status, "CertificatesReady") == ("False", "AuthorityInvalid")
    assert plan.create == plan.update == ()


def test_the_serving_certificate_is_renewed_in_time() -> None:
    site = Site().installed()
    before = site.observed.secrets["main-internal"]["data"]
    expiry = site.raw["status"]["certificateExpiry"]
    assert expiry == stamp(timedelta(days=90) - timedelta(minutes=2))
    plan = site.step(NOW + timedelta(days=61))
    assert site.observed.secrets["main-internal"]["data"] != before
    assert [event.reason for event in plan.events] == ["CertificateIssued"]


def test_postgresql_has_replicas_a_policy_and_no_volume() -> None:
    reference = {"name": "pg", "key": "password"}
    site = Site(
        replicas=3,
        storage={"postgresql": {"url": "postgresql://t@db/t", "passwordSecretRef": reference}},
    )
    secrets = {**site.observed.secrets, "pg": {"metadata": {}, "data": {"password": "eA=="}}}
    site.observed = replace(site.observed, secrets=secrets)
    site.installed()
    deployment = site.observed.deployment
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"
    assert site.observed.volume_claim is None
    file = yaml.safe_load(site.observed.config_maps["main-config"]["data"]["authserver.yaml"])
    assert file["storage"] == {
        "url": "postgresql://t@db/t",
        "replicas": 3,
        "passwordFile": "/var/run/tokenward/postgresql/password",
    }
    assert condition(site.raw["status"], "StorageReady") == ("True", "Configured")


def test_no_secret_reaches_a_status_an_event_or_a_config_map() -> None:
    site = Site()
    plans = [site.step()]
    site.check("Complete")
    plans.append(site.step())
    for plan in plans:
        shown = str(plan.status) + str(plan.events)
        shown += str([o for o in (*plan.apply, *plan.create) if o["kind"] != "Secret"])
        assert "PRIVATE KEY" not in shown
        assert b64encode(bytes(range(32))).decode() not in shown


def test_ready_means_that_all_conditions_hold() -> None:
    site = Site().installed()
    claim, deployment = site.observed.volume_claim, site.observed.deployment
    assert claim is not None
    assert deployment is not None
    assert condition(site.raw["status"], "Ready") == ("False", "WaitingForVolume")
    site.observed = replace(
        site.observed,
        volume_claim={**claim, "status": {"phase": "Bound"}},
        deployment={**deployment, "status": {"availableReplicas": 1, "readyReplicas": 1}},
    )
    plan = site.plan()
    assert condition(plan.status, "Ready") == ("True", "Ready")
    assert (plan.status["phase"], plan.status["readyReplicas"]) == ("Ready", 1)


def test_a_deployment_of_an_earlier_apply_keeps_its_selector() -> None:
    selector = {"matchLabels": {"app.kubernetes.io/name": "tokenward-authserver"}}
    site = Site()
    site.observed = replace(site.observed, deployment={"spec": {"selector": selector}})
    site.installed()
    assert site.observed.deployment is not None
    assert site.observed.deployment["spec"]["selector"] == selector


def test_pods_with_a_sidecar_whose_last_day_is_over_are_said_until_they_are_confirmed() -> None:
    site = Site().installed()
    claim = {**(site.observed.volume_claim or {}), "status": {"phase": "Bound"}}
    deployment = {**(site.observed.deployment or {}), "status": {"availableReplicas": 1}}
    site.observed = replace(site.observed, volume_claim=claim, deployment=deployment)
    around = replace(AROUND, old_sidecars={"old@sha256:1": 3})

    def plan() -> Plan:
        made = reconcile.plan(AuthServer.of(site.raw), site.observed, around, NOW, MAKERS)
        site.raw["status"] = made.status
        return made

    first = plan()
    assert condition(first.status, "Ready") == ("True", "OldSidecarAllowed")
    assert first.status["phase"] == "Degraded"
    assert [one.reason for one in first.events] == ["OldSidecarAllowed"]
    assert "3 with old@sha256:1" in first.events[0].message
    assert plan().events == ()
    site.raw["metadata"]["annotations"] = {"tokenward.dev/confirm-old-sidecar": "old@sha256:1"}
    confirmed = plan()
    assert condition(confirmed.status, "Ready") == ("True", "Ready")
    assert confirmed.status["phase"] == "Ready"
