"""A cluster as `KUBECONFIG` names it, driven by kubectl, and what is shipped, fitted to it."""

import contextlib
import json
import secrets
import subprocess
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, TypeVar

from tests.manifests.rendering import kubectl

Object = dict[str, Any]
_T = TypeVar("_T")

_SECONDS_TO_TAKE_OVER = 60


class Refused(Exception):
    """What the API server said."""


@dataclass
class Cluster:
    """One namespace of a real cluster, and the cluster-wide objects of this run."""

    namespace: str
    suffix: str = field(default_factory=lambda: secrets.token_hex(4))

    def run(self, *arguments: str, given: Object | None = None) -> str:
        """What kubectl prints, warnings last; raises `Refused` where it fails."""
        done = subprocess.run(
            [kubectl(), *arguments],
            input=json.dumps(given) if given is not None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(done.stderr)
        return done.stdout + done.stderr

    def inside(self, *arguments: str, given: Object | None = None) -> str:
        """As `run`, in the namespace."""
        return self.run(*arguments, "-n", self.namespace, given=given)

    def create(self, made: Object, *options: str) -> Object:
        """Create it and read back what the API server made of it."""
        return _read(self.inside("create", "-f", "-", "-o", "json", *options, given=made))

    def dry(self, made: Object) -> Object:
        """What the API server would make of it."""
        return self.create(made, "--dry-run=server")

    def refusal(self, made: Object, namespace: str | None = None) -> str:
        """Why the API server would not create it; empty if it would."""
        where = ("-n", namespace or self.namespace)
        try:
            self.run("create", *where, "-f", "-", "--dry-run=server", given=made)
        except Refused as told:
            return str(told)
        return ""

    def get(self, kind: str, name: str) -> Object | None:
        """As the API server has it; None if there is none."""
        found = self.inside("get", kind, name, "-o", "json", "--ignore-not-found")
        return _read(found) if found else None

    def apply_everywhere(self, made: Object) -> str:
        return self.run("apply", "-f", "-", given=made)

    def give_account(self, namespace: str) -> None:
        """Make the ServiceAccount `default`; pods need it, and a controller manager may be late."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        with contextlib.suppress(Refused):  # the controller manager was faster
            self.run("create", "-n", namespace, "-f", "-", given=account)

    def label(self, key: str, value: str) -> None:
        self.run("label", "--overwrite", "namespace", self.namespace, f"{key}={value}")


def _read(text: str) -> Object:
    """kubectl's JSON without the warnings it prints behind it."""
    found: Object
    found, _ = json.JSONDecoder().raw_decode(text)
    return found


def eventually(
    attempt: Callable[[], _T],
    holds: Callable[[_T], bool],
    seconds: float = _SECONDS_TO_TAKE_OVER,
) -> _T:
    """API servers take configurations over within seconds, and say nothing when they have."""
    end = monotonic() + seconds
    while True:
        found = attempt()
        if holds(found) or monotonic() > end:
            assert holds(found), found
            return found
        sleep(0.2)


def pointed_at(
    configuration: Object, *, url: str, ca: str, cluster: Cluster, also: tuple[str, ...] = ()
) -> Object:
    """The shipped MutatingWebhookConfiguration, for this namespace and a server on this host.

    `also` are further namespaces that it would reach if its own selector let it.
    """
    made: Object = json.loads(json.dumps(configuration))
    made["metadata"] = {"name": f"tokenward-test-{cluster.suffix}"}
    for webhook in made["webhooks"]:
        path = webhook["clientConfig"]["service"]["path"]
        webhook["clientConfig"] = {"url": url + path}
        if ca:
            webhook["clientConfig"]["caBundle"] = b64encode(ca.encode()).decode()
        webhook["namespaceSelector"]["matchExpressions"].append(_only(cluster, also))
    return made


def narrowed(policy: Object, cluster: Cluster, also: tuple[str, ...] = ()) -> Object:
    """A shipped policy or binding under a name of this run, for this namespace (and `also`)."""
    made: Object = json.loads(json.dumps(policy))
    made["metadata"] = {"name": f"{policy['metadata']['name']}-{cluster.suffix}"}
    if "policyName" in made["spec"]:
        made["spec"]["policyName"] += f"-{cluster.suffix}"
        expressions = {"matchExpressions": [_only(cluster, also)]}
        made["spec"]["matchResources"] = {"namespaceSelector": expressions}
    return made


def _only(cluster: Cluster, also: tuple[str, ...]) -> Object:
    return {
        "key": "kubernetes.io/metadata.name",
        "operator": "In",
        "values": [cluster.namespace, *also],
    }
