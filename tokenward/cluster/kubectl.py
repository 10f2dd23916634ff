"""kubectl, so that kubeconfig, credentials and proxies are its business and not ours."""

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]

_SECONDS: Final = 60
# A line of Kubernetes' klog: severity, month and day, time.
_LOGGED: Final = re.compile(r"[EFIW]\d{4} \d\d:\d\d:")
_REQUEST_TIMEOUT: Final = "--request-timeout=15s"


class KubectlFailed(Exception):
    """kubectl is not there, or failed; the text is one line of its own words."""


@dataclass(frozen=True)
class Kubectl:
    """`program` is a path, or a name on PATH; it uses KUBECONFIG and the current context."""

    program: str = "kubectl"

    def objects(self, kind: str, *options: str) -> list[Object]:
        """All objects of a kind. Raises KubectlFailed, also where the API server has no such kind.

        `options` are kubectl's, such as `--all-namespaces`.
        """
        answer = json.loads(self._run("get", kind, "-o", "json", *options))
        items: list[Object] = answer["items"]
        return items

    def refusal_of(self, made: Object) -> str:
        """Why the API server would not create `made`; empty where it would. Nothing is created."""
        try:
            self._run("create", "--dry-run=server", "-f", "-", given=json.dumps(made))
        except KubectlFailed as refused:
            return str(refused)
        return ""

    def _run(self, *arguments: str, given: str | None = None) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - the operator names the program
                [self.program, _REQUEST_TIMEOUT, *arguments],
                input=given,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        except FileNotFoundError:
            raise KubectlFailed(f"{self.program}: no such program") from None
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise KubectlFailed(f"{self.program}: {failed}") from None
        if done.returncode != 0:
            raise KubectlFailed(_told(done.stderr) or f"exit code {done.returncode}")
        return done.stdout


def _told(stderr: str) -> str:
    """What kubectl tells its user, on one line; without what its libraries log beside it."""
    lines = [line for line in stderr.splitlines() if not _LOGGED.match(line)]
    return " ".join(" ".join(lines).split())
