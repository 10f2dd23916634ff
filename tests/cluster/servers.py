"""Servers on this host that the API server calls: the webhook, and one of somebody else's."""

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, BaseServer, ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.bench.against import Tree
from tests.cluster.cluster import Object, eventually
from tests.manifests.rendering import kubectl
from tests.support.server_certificates import Authority
from tests.webhook.pods import raw_settings

_ROOT = Path(__file__).parents[2]


def address_towards_the_api_server() -> str:
    """This host as the cluster may reach it; `TOKENWARD_TEST_HOST` where that guess is wrong."""
    if told := os.environ.get("TOKENWARD_TEST_HOST"):  # noqa: TID251 - how a person says it
        return told
    server = subprocess.run(
        [kubectl(), "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 443))
        return str(probe.getsockname()[0])


@dataclass(frozen=True)
class RunningWebhook:
    """A webhook in a process of its own; `ops_port` is 0 where it says nothing of itself."""

    port: int
    ops_port: int
    pid: int


@contextmanager
def webhook_on_this_host(
    folder: Path, authority: Authority, host: str, linger_seconds: float = 0, **changes: Any
) -> Iterator[int]:
    """`python -m webhook` in a process of its own, told to stop at the end; yields its port."""
    ours = Tree(_ROOT, Path(sys.executable))
    with webhook_of(ours, folder, authority, host, linger_seconds, **changes) as running:
        yield running.port


@contextmanager
def webhook_of(
    tree: Tree,
    folder: Path,
    authority: Authority,
    host: str,
    linger_seconds: float = 0,
    **changes: Any,
) -> Iterator[RunningWebhook]:
    """The same of another tree, with its interpreter."""
    authority.issue(folder, host=host)
    listener = {
        "host": "0.0.0.0",
        "port": 0,
        "certFile": str(folder / "tls.crt"),
        "keyFile": str(folder / "tls.key"),
        "lingerSeconds": linger_seconds,
    }
    raw = raw_settings(
        authserver={"url": "https://authserver.example.com", "caFile": "ca.pem"},
        listeners={"webhook": listener, "ops": {"host": "127.0.0.1", "port": 0}},
        **changes,
    )
    (folder / "webhook.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    written = folder / "webhook.log"
    with written.open("wb") as log:  # nobody would read a pipe, and a full one stops the webhook
        process = subprocess.Popen(
            [str(tree.python), "-m", "webhook", "--config", str(folder / "webhook.yaml")],
            stderr=log,
            cwd=tree.folder,
        )
    try:
        lines = eventually(partial(_read, written), lambda found: "ready" in found)
        port, ops_port = (int(lines[event]["port"]) for event in ("listening", "listening ops"))
        yield RunningWebhook(port, ops_port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _read(log: Path) -> dict[str, Object]:
    """The webhook's last line of each event; those of the ops listener end in ` ops`."""
    told = [
        json.loads(line)
        for line in log.read_text("utf-8").splitlines(keepends=True)
        if line.endswith("\n")
    ]
    return {
        f"{line['event']} ops" if line.get("listener") == "ops" else line["event"]: line
        for line in told
    }


class Service(ThreadingTCPServer):
    """What a Service does: each new connection to the replica of the moment; old ones stay."""

    replica = 0

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", 0), _Connection)


class _Connection(BaseRequestHandler):
    server: Service

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.replica)) as onward:
            across = {self.request: onward, onward: self.request}
            with contextlib.suppress(OSError):
                while True:
                    for ready in select.select(list(across), [], [])[0]:
                        if not (some := ready.recv(65536)):
                            return
                        across[ready].sendall(some)


@contextmanager
def served(server: BaseServer) -> Iterator[None]:
    """Answers in a thread of its own until the end."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def later_webhook(folder: Path, patch: Callable[[Object], list[Object]]) -> Iterator[int]:
    """Another project's webhook, which mutates after ours; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operations = patch(review["request"]["object"])
            response = {"uid": review["request"]["uid"], "allowed": True}
            if operations:
                encoded = b64encode(json.dumps(operations).encode()).decode()
                response |= {"patchType": "JSONPatch", "patch": encoded}
            body = json.dumps(
                {
                    "apiVersion": review["apiVersion"],
                    "kind": "AdmissionReview",
                    "response": response,
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            return

    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    with served(server):
        yield server.server_address[1]
