# ruff: noqa: TID251 - the environment is set before the first import that reads it
"""Builds the webhook from its settings and runs it; or injects manifests offline."""

import gc
import os

from chassis import lean_prometheus

if __name__ == "__main__":
    gc.disable()  # until `process.main`, as in the authserver
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # nor look for any: we have none
    lean_prometheus.load()

import argparse
import asyncio
import ssl
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from chassis import clock, http1_probes, logs, probes, process
from chassis.file_watch import poll_forever
from chassis.http1.listener import Listener
from chassis.tls import contexts, reload, self_handshake
from webhook import listener as app
from webhook import readiness_check
from webhook.config_watcher import Configuration
from webhook.metrics import Metrics
from webhook.settings import WebhookListener

_DRAIN_SECONDS = 15.0


def main(arguments: Sequence[str] | None = None) -> None:
    parsed = _arguments(arguments)
    if parsed.command == "inject":
        from webhook.inject_command import inject  # what serves reviews reads no manifests

        sys.exit(inject(parsed))
    logs.configure("webhook")
    process.main(partial(serve, Path(parsed.config)), loop=uvloop.new_event_loop)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m webhook", description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="the operator's configuration (YAML)")
    commands = parser.add_subparsers(dest="command")
    offline = commands.add_parser("inject", help="inject manifests without a cluster")
    offline.add_argument("-f", dest="file", metavar="FILE", required=True, help="- for stdin")
    offline.add_argument("--config", metavar="FILE", help="the operator's configuration (YAML)")
    offline.add_argument(
        "--namespace", metavar="NS", default="default", help="of objects that name none"
    )
    offline.add_argument(
        "--explain", action="store_true", help="print decision, reason and patch instead"
    )
    parsed = parser.parse_args(arguments)
    if parsed.command is None and parsed.config is None:
        parser.error("--config is required")
    return parsed


async def serve(config: Path) -> None:
    """Serve admission reviews until a signal."""
    registry = probes.new_registry()
    metrics = Metrics(registry)
    configuration = Configuration(
        config, fault=readiness_check.fault, on_reload=partial(_count, metrics)
    )
    settings = configuration.settings
    logs.configure("webhook", settings.log_level)
    readiness = probes.Readiness("certificate", "listening")
    serving = _serving_certificate(settings.listeners.webhook)
    async with asyncio.TaskGroup() as tasks:
        watchers = [
            tasks.create_task(configuration.watch()),
            tasks.create_task(_watch_certificate(serving, readiness, metrics)),
        ]
        listener = settings.listeners.webhook
        await process.serve(
            [
                Listener(
                    "webhook",
                    listener.host,
                    listener.port,
                    app.server(configuration.current, readiness, metrics),
                    tls=serving.context,
                )
            ],
            ops=_ops(settings.listeners.ops.host, settings.listeners.ops.port, readiness, registry),
            readiness=readiness,
            drain_seconds=_DRAIN_SECONDS,
            linger_seconds=listener.linger_seconds,
        )
        for watcher in watchers:
            watcher.cancel()


def _serving_certificate(listener: WebhookListener) -> reload.ContextReloader:
    pair = contexts.KeyPair(listener.cert_file, listener.key_file)

    def build() -> tuple[ssl.SSLContext, self_handshake.Certificate]:
        return contexts.server_context(pair), self_handshake.verify_key_pair(pair, as_client=False)

    try:
        return reload.ContextReloader("serving", build, (pair.certificate, pair.key))
    except contexts.CredentialFault as fault:
        raise process.StartFailed(f"serving certificate: {fault}") from None


async def _watch_certificate(
    serving: reload.ContextReloader, readiness: probes.Readiness, metrics: Metrics
) -> None:
    """Take over renewed certificates; ready only while the one in use is valid."""

    def poll() -> None:
        serving.poll()
        metrics.certificate_expiry.set(serving.certificate.not_after)
        if clock.wall() < serving.certificate.not_after:
            readiness.satisfy("certificate")
        else:
            readiness.clear("certificate")

    poll()
    await poll_forever(poll)


def _ops(
    host: str, port: int, readiness: probes.Readiness, registry: CollectorRegistry
) -> Listener:
    return Listener("ops", host, port, http1_probes.ops_server(readiness, registry))


def _count(metrics: Metrics, reloaded: bool) -> None:
    metrics.config_reloads.labels("success" if reloaded else "failure").inc()


if __name__ == "__main__":
    main()
