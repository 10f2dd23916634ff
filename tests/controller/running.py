"""A whole controller against an API server in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from controller.api.kinds import (
    CONFIG_MAP,
    CRD,
    DEPLOYMENT,
    JOB,
    MCP_AUTH_SERVER,
    MCP_SERVER_AUTH,
    NAMESPACE,
    POD,
    POD_CERTIFICATE_REQUEST,
    VOLUME_CLAIM,
)
from controller.api.objects import Key, Object
from controller.app import Controller
from controller.metrics import Metrics
from controller.reconcile import resource_map
from controller.settings import Settings
from tests.controller.samples import (
    NOW,
    SYSTEM,
    auth_server_object,
    condition,
    server_object,
    stamp,
)
from tests.fakes.kubernetes_api import FakeApi

SIDECAR = f"registry.example.com/tokenward/sidecar@sha256:{'0' * 64}"
MAIN = Key(SYSTEM, "main")
NOTES = Key("mcp-servers", "notes")
SETTINGS: dict[str, Any] = {
    "authserverImage": "tokenward/authserver:dev",
    "webhook": {"authServer": "main", "configuration": {"image": SIDECAR}},
}
_TURNS, _TURN_SECONDS = 20_000, 0.01


@dataclass
class AuthserverPods:
    """What pods of the authserver say of their map: what their kubelet has written."""

    api: FakeApi
    in_step: bool = True

    async def ask(self, pod: Object) -> Mapping[str, str] | None:
        if not self.in_step:
            return {}
        found = {}
        for number in range(resource_map.SHARDS):
            name = Key(SYSTEM, resource_map.config_map_name("main", number))
            shard = self.api.objects.get((CONFIG_MAP, name))
            if shard is not None:
                file = resource_map.file_name(number)
                found[file] = resource_map.shard_hash(shard["data"][file])
        return found


@dataclass
class Site:
    """One cluster; `controller` starts a replica in it."""

    api: FakeApi = field(default_factory=lambda: FakeApi(stamp))
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))

    def __post_init__(self) -> None:
        self.pods = AuthserverPods(self.api)
        self.now = NOW
        for name in ("mcp-servers", "others", SYSTEM):
            self.put_namespace(name)
        for plural in ("mcpauthservers", "mcpserverauths"):
            meta = {"name": f"{plural}.tokenward.dev", "annotations": {"tokenward.dev/schema": "3"}}
            self.api.put({"apiVersion": CRD.api_version, "kind": CRD.kind, "metadata": meta})
        self.put_secret("github-app", {"secret": "eA=="})

    def put_namespace(self, name: str, **labels: str) -> None:
        meta = {"name": name, "labels": labels}
        self.api.put({"apiVersion": "v1", "kind": NAMESPACE.kind, "metadata": meta})

    def put_secret(self, name: str, data: dict[str, str], namespace: str = SYSTEM) -> None:
        meta = {"name": name, "namespace": namespace}
        self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    def put_auth_server(self, **spec: Any) -> None:
        self.api.put(_fresh(auth_server_object(**spec)))

    def put_server(self, name: str = "notes", namespace: str = "mcp-servers", **more: Any) -> None:
        self.api.put(_fresh(server_object(name, namespace, **more)))

    def status(self, key: Key = NOTES) -> dict[str, Any]:
        found = self.api.objects.get((MCP_SERVER_AUTH, key), {})
        status: dict[str, Any] = found.get("status", {})
        return status

    def auth_status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.api.found(MCP_AUTH_SERVER, MAIN).get("status", {})
        return status

    def is_so(self, kind: str, status: str, key: Key = NOTES) -> bool:
        found = self.status(key)
        return bool(found) and condition(found, kind)[0] == status

    def map(self) -> dict[str, dict[str, Any]]:
        """The entries of all shards, by resource."""
        return {
            str(one["resource"]): dict(one)
            for (kind, key), found in self.api.objects.items()
            if kind == CONFIG_MAP and key.name.startswith("main-resources-")
            for one in resource_map.entries(found)
        }

    def run_cluster(self) -> None:
        """What the other controllers and the kubelet do: Jobs end, pods run, volumes are bound."""
        for (kind, key), found in list(self.api.objects.items()):
            if kind == JOB and "status" not in found:
                done = {"conditions": [{"type": "Complete", "status": "True"}]}
                self.api.set_status(JOB, key, done)
            elif kind == VOLUME_CLAIM and "status" not in found:
                self.api.set_status(kind, key, {"phase": "Bound"})
            elif kind == DEPLOYMENT and "status" not in found:
                self.api.set_status(kind, key, {"availableReplicas": 1, "readyReplicas": 1})
                self._start_pod(found)

    def _start_pod(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        name = f"{deployment['metadata']['name']}-0"
        meta = {"name": name, "namespace": SYSTEM, "labels": template["metadata"]["labels"]}
        self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}})
        self.api.set_status(POD, Key(SYSTEM, name), {"phase": "Running", "podIP": "192.0.2.1"})

    def controller(self, identity: str = "one", settings: Settings | None = None) -> Controller:
        return Controller(
            settings or Settings.model_validate(self.settings),
            self.api,  # type: ignore[arg-type]  # the same methods
            Metrics(CollectorRegistry()),
            self.pods,
            identity=identity,
            now=lambda: self.now,
            monotonic=lambda: asyncio.get_running_loop().time(),
            random=lambda: 0.5,
            pod_certificates=POD_CERTIFICATE_REQUEST,
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the controller and the rest of the cluster run until it holds."""
        for _ in range(_TURNS):
            self.run_cluster()
            if holds():
                return
            await asyncio.sleep(_TURN_SECONDS)
        raise AssertionError(f"it never came about: {self.status()}")

    async def quiet(self) -> None:
        """Until nobody writes any more."""
        writes, same = self.api.writes.copy(), 0
        while same < 100:
            self.run_cluster()
            await asyncio.sleep(_TURN_SECONDS)
            now = {k: v for k, v in self.api.writes.items() if k != "Lease"}
            same = same + 1 if now == writes else 0
            writes = now  # type: ignore[assignment]


def _fresh(found: dict[str, Any]) -> dict[str, Any]:
    """Without what the API server gives."""
    for name in ("uid", "generation"):
        found["metadata"].pop(name)
    return found


@asynccontextmanager
async def running(site: Site, identity: str = "one") -> AsyncIterator[Controller]:
    """A replica until the end of the block, where it ends as by SIGTERM."""
    controller = site.controller(identity)
    task = asyncio.create_task(controller.run())
    try:
        yield controller
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
