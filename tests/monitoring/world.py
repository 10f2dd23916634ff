"""All four processes with their surroundings, a Prometheus that scrapes them, and steady use."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from authserver.config.loader import load
from authserver.storage.engines.open import open_database
from authserver.storage.records import Grant, UpstreamTokens
from chassis import clock
from chassis.spiffe_id import Workload
from demo import stack
from demo.layout import CLIENT_ID, HOST, NAMESPACE, UPSTREAM, Layout, _free_ports, plan
from demo.material import write_material
from demo.pki import CertificateAuthority, write_private
from demo.processes import Processes
from demo.upstream import FakeUpstream
from tests.bench.world import lift_limits
from tests.monitoring.api_server import ApiServer
from tests.monitoring.controller_process import ControllerProcess
from tests.monitoring.prometheus import Target, scraping
from tests.monitoring.rules import shortened
from tests.monitoring.scene import TOKEN_SECONDS, LogPipe, World
from tests.monitoring.use import uses
from tests.monitoring.webhook_replica import WebhookReplica
from tests.support.storage_fixtures import Store
from tests.webhook.pods import raw_settings

_PODS, _SIDECARS = "tokenward-system/tokenward", "tokenward-system/tokenward-sidecars"


@asynccontextmanager
async def running(folder: Path, times: int) -> AsyncIterator[World]:
    """Everything, in use; rules have their times so many times shorter."""
    async with AsyncExitStack() as everything:
        world, ports = await _start(folder, everything)
        for work in uses(world):
            task = asyncio.create_task(work)
            everything.push_async_callback(_cancelled, task)
        world.prometheus = await everything.enter_async_context(
            scraping(folder, ports["prometheus"], _targets(world.layout, ports), shortened(times))
        )
        yield world


async def _start(folder: Path, everything: AsyncExitStack) -> tuple[World, dict[str, int]]:
    layout = plan(folder, behind_gateways=("plain",))
    free = _free_ports()
    names = ("webhook", "webhook-ops", "replica-ops", "controller-ops", "api-server", "prometheus")
    ports = {name: next(free) for name in names}
    write_material(layout)
    lift_limits(layout)
    servers, workloads = (CertificateAuthority.create(name) for name in ("servers", "workloads"))
    write_private(layout.server_ca, servers.certificate_pem)
    write_private(layout.workload_ca, workloads.certificate_pem)
    upstream = FakeUpstream(
        client_id=CLIENT_ID,
        client_secret=layout.client_secret.read_text().strip(),
        redirect_uri=layout.callback,
        access_token_lifetime=TOKEN_SECONDS,
    )
    await everything.enter_async_context(upstream.serve(port=layout.upstream_port))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(layout.api_credential / "tls.crt", layout.api_credential / "tls.key")
    await everything.enter_async_context(upstream.serve_api(port=layout.api_port, tls=tls))
    processes = await everything.enter_async_context(Processes(folder))
    http = await everything.enter_async_context(
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
    )
    world = World(
        folder, layout, processes, upstream, servers, workloads,
        ApiServer(ports["webhook"], layout.server_ca), ControllerProcess(ports["controller-ops"]),
        WebhookReplica(), LogPipe(folder / "authserver.log"), http,
    )  # fmt: skip
    world.certify_authserver()
    world.certify_webhook()
    for server in layout.servers:
        world.certify_sidecar(server.name)
    await _people_of_before(layout)
    await stack.start_beside_upstream(layout, processes)
    _configure_webhook(world, ports)
    await processes.start("webhook", "webhook", "--config", str(folder / "webhook.yaml"))
    await processes.ready("webhook", f"http://{HOST}:{ports['webhook-ops']}/readyz")
    await everything.enter_async_context(world.api_server.metrics(ports["api-server"]))
    replica = world.webhook_replica.running(folder / "webhook", ports["replica-ops"])
    await everything.enter_async_context(replica)
    await world.controller.start()
    everything.push_async_callback(world.controller.stop)
    for server in layout.servers:
        for user in ("alice", "bob"):
            await world.sign_in(server.name, user)
    return world, ports


async def _people_of_before(layout: Layout) -> None:
    """Store a sign-in that ends within a week: the authserver counts such users when it starts."""
    settings = load(layout.config)
    database = await open_database(settings.storage.url, settings.storage.password)
    now = int(clock.wall())
    tokens = UpstreamTokens("access", "refresh", None, now, now + 3600, None, now + 3 * 86400)
    given = Grant(UPSTREAM, layout.upstream, "user-of-before", tokens)
    await Store(database, keyring=settings.keyring()).sign_in(
        given, owner=Workload(NAMESPACE, "notes"), created_at=now, expires_at=now + 86400
    )
    await database.close()


def _configure_webhook(world: World, ports: dict[str, int]) -> None:
    listener = {
        "host": HOST,
        "port": ports["webhook"],
        "certFile": str(world.folder / "webhook/tls.crt"),
        "keyFile": str(world.folder / "webhook/tls.key"),
    }
    raw = raw_settings(
        authserver={"url": "https://a.svc:8443", "caFile": str(world.layout.server_ca)},
        listeners={"webhook": listener, "ops": {"host": HOST, "port": ports["webhook-ops"]}},
    )
    (world.folder / "webhook.yaml").write_text(yaml.safe_dump(raw))


def _targets(layout: Layout, ports: dict[str, int]) -> list[Target]:
    return [
        Target(layout.ops_port, _PODS, "authserver", "tokenward-authserver-0"),
        Target(ports["webhook-ops"], _PODS, "webhook", "tokenward-webhook-0"),
        Target(ports["replica-ops"], _PODS, "webhook", "tokenward-webhook-1"),
        Target(ports["controller-ops"], _PODS, "controller", "tokenward-controller-0"),
        Target(ports["api-server"], "apiserver", "kube-apiserver", "api-server", "kube-system"),
        *(
            Target(server.ops_port, _SIDECARS, "tokenward", f"{server.name}-0", NAMESPACE)
            for server in layout.servers
        ),
    ]


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
