"""`python -m demo.cluster`: install manifests/overlays/demo, wait for its Job, print the Job's log.

KUBECONFIG names the cluster, TOKENWARD_SIDECAR_IMAGE the sidecar's image by digest, as the nodes
have it. The exit code is 1 when the Job failed or something did not become ready.
"""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from demo.cluster.material import ROUTER_SECRET, material, namespaces
from demo.cluster.places import NAMESPACE, SERVERS_NAMESPACE, SYSTEM_NAMESPACE, Places

_ROOT: Final = Path(__file__).resolve().parents[2]
_MANIFESTS: Final = _ROOT / "manifests"
# The digest of an image that nobody has built: quickstart leaves it to be filled in.
_NO_SIDECAR: Final = f"registry.example.com/tokenward/sidecar@sha256:{'0' * 64}"
_JOB: Final = "job/client"
_START_SECONDS: Final = 120.0
_END_SECONDS: Final = 30.0
_KINDS: Final = ("crd/mcpauthservers.tokenward.dev", "crd/mcpserverauths.tokenward.dev")
_WAIT: Final = "--timeout=300s"


class NotHeld(Exception):
    """kubectl failed, or the Job did."""


def main() -> int:
    parser = ArgumentParser(prog="python -m demo.cluster", description=__doc__)
    parser.add_argument("--workloads", action="store_true", help="walk again what is installed")
    installed = parser.parse_args().workloads
    try:
        if not installed:
            _install(os.environ["TOKENWARD_SIDECAR_IMAGE"])  # noqa: TID251 - of the cluster
        _start_workloads()
        return 0 if _walked() else 1
    except KeyError:
        print("TOKENWARD_SIDECAR_IMAGE does not name the sidecar's image", file=sys.stderr)
        return 1
    except NotHeld as failed:
        print(failed, file=sys.stderr)
        _show_what_is_there()
        return 1


def _install(sidecar: str) -> None:
    print("Installing manifests/crds and manifests/overlays/demo", flush=True)
    _kubectl("apply", "-k", str(_MANIFESTS / "crds"))
    _kubectl("wait", "--for=condition=Established", *_KINDS, _WAIT)
    _apply(namespaces())
    # Pods that run have read what an earlier run made.
    if not _kubectl("get", "-n", NAMESPACE, "secret", ROUTER_SECRET, "--ignore-not-found"):
        _apply(material(Places()))
    rendered = _kubectl("kustomize", str(_MANIFESTS / "overlays/demo"))
    if rendered.count(_NO_SIDECAR) != 1:
        raise NotHeld("the overlay does not name the sidecar's image once")
    _kubectl("apply", "-f", "-", given=rendered.replace(_NO_SIDECAR, sidecar))
    _wait_for(SYSTEM_NAMESPACE, "mcpauthserver/main", "deployment/tokenward-webhook")
    _wait_for(SERVERS_NAMESPACE, "mcpserverauth/notes", "mcpserverauth/plain")


def _start_workloads() -> None:
    """Apply what the webhook has to see."""
    # The Job of an earlier run cannot be changed.
    _kubectl("delete", "-n", NAMESPACE, _JOB, "--ignore-not-found", "--wait")
    _kubectl("apply", "-k", str(_MANIFESTS / "overlays/demo/workloads"))
    _wait_for(SERVERS_NAMESPACE, "deployment/notes", "deployment/plain")


def _wait_for(namespace: str, *names: str) -> None:
    """Until each of them is Ready; of a Deployment, until all its pods are."""
    for name in names:
        print(f"Waiting for {namespace} {name}", flush=True)
        if name.startswith("deployment/"):
            _kubectl("rollout", "status", "-n", namespace, name, _WAIT)
        else:
            _kubectl("wait", "-n", namespace, "--for=condition=Ready", name, _WAIT)


def _walked() -> bool:
    """Print what the Job prints, as it prints it; whether it succeeded."""
    log = [_program(), "logs", "-n", NAMESPACE, "--follow", _JOB]
    end = monotonic() + _START_SECONDS
    # kubectl does not wait for a container that is still being made.
    while subprocess.run(log, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        if monotonic() > end:
            raise NotHeld(f"{_JOB} has not started")
        sleep(0.5)
    end = monotonic() + _END_SECONDS
    while monotonic() < end:
        status = json.loads(_kubectl("get", "-n", NAMESPACE, _JOB, "-o", "json"))["status"]
        ended = {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}
        if ended & {"Complete", "Failed"}:
            return "Complete" in ended
        sleep(1)
    raise NotHeld(f"{_JOB} has not ended")


def _show_what_is_there() -> None:
    for namespace in (SYSTEM_NAMESPACE, SERVERS_NAMESPACE, NAMESPACE):
        shown = _kubectl("get", "-n", namespace, "pods,mcpauthservers,mcpserverauths", lax=True)
        print(f"{namespace}\n{shown}", file=sys.stderr)


def _apply(made: Iterable[dict[str, Any]]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(made)}
    _kubectl("apply", "-f", "-", given=json.dumps(listed))


def _kubectl(*arguments: str, given: str | None = None, lax: bool = False) -> str:
    """What kubectl prints; raises NotHeld where it fails, unless `lax`."""
    done = subprocess.run(
        [_program(), *arguments], input=given, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and not lax:
        raise NotHeld(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _program() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.exists() else "kubectl"


if __name__ == "__main__":
    sys.exit(main())
