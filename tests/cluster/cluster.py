"""A cluster as `KUBECONFIG` names it, driven through kubectl; a webhook that runs on this host."""

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.manifests.rendering import kubectl
from tests.webhook.certificates import Authority
from tests.webhook.pods import raw_settings

_ROOT = Path(__file__).parents[2]

Object = dict[str, Any]


class Refused(Exception):
    """What the API server said."""


@dataclass
class Cluster:
    """One namespace of a real cluster, and the cluster-wide objects of this run."""

    namespace: str
    suffix: str = field(default_factory=lambda: secrets.token_hex(4))

    def run(self, *arguments: str, given: Object | None = None) -> str:
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

    def create(self, made: Object, *options: str) -> Object:
        """Create it and read back what the API server made of it."""
        found: Object = json.loads(
            _without_warnings(
                self.run(
                    "create", "-n", self.namespace, "-f", "-", "-o", "json", *options, given=made
                )
            )
        )
        return found

    def apply_everywhere(self, made: Object) -> None:
        self.run("apply", "-f", "-", given=made)

    def label(self, key: str, value: str) -> None:
        self.run("label", "--overwrite", "namespace", self.namespace, f"{key}={value}")


def _without_warnings(text: str) -> str:
    """kubectl's JSON without the warnings it prints behind it."""
    decoder = json.JSONDecoder()
    _, end = decoder.raw_decode(text)
    return text[:end]


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


@contextmanager
def webhook_on_this_host(folder: Path, authority: Authority, host: str) -> Iterator[int]:
    """`python -m webhook` in a process of its own; yields its port."""
    authority.issue(folder, host=host)
    listener = {
        "host": "0.0.0.0",
        "port": 0,
        "certFile": str(folder / "tls.crt"),
        "keyFile": str(folder / "tls.key"),
        "lingerSeconds": 0,
    }
    raw = raw_settings(
        authserver={"url": "https://authserver.example.com", "caFile": "ca.pem"},
        listeners={"webhook": listener, "ops": {"host": "127.0.0.1", "port": 0}},
    )
    (folder / "webhook.yaml").write_text(yaml.safe_dump(raw), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "webhook", "--config", str(folder / "webhook.yaml")],
        stderr=subprocess.PIPE,
        cwd=_ROOT,
    )
    try:
        yield _port_when_ready(process)
    finally:
        process.terminate()
        process.communicate()


def _port_when_ready(process: "subprocess.Popen[bytes]") -> int:
    assert process.stderr is not None
    port = 0
    for line in process.stderr:
        told = json.loads(line)
        if told["event"] == "listening" and told["listener"] == "webhook":
            port = int(told["port"])
        if told["event"] == "ready":
            return port
    raise AssertionError("the webhook did not start")


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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pointed_at(configuration: Object, *, url: str, ca: str, cluster: Cluster) -> Object:
    """The shipped MutatingWebhookConfiguration, for this namespace and a server on this host."""
    made: Object = json.loads(json.dumps(configuration))
    made["metadata"] = {"name": f"tokenward-test-{cluster.suffix}"}
    for webhook in made["webhooks"]:
        path = webhook["clientConfig"]["service"]["path"]
        webhook["clientConfig"] = {"url": url + path, "caBundle": b64encode(ca.encode()).decode()}
        webhook["namespaceSelector"]["matchExpressions"].append(_only(cluster))
    return made


def narrowed(policy: Object, cluster: Cluster) -> Object:
    """A shipped policy or binding under a name of this run, for this namespace."""
    made: Object = json.loads(json.dumps(policy))
    made["metadata"] = {"name": f"{policy['metadata']['name']}-{cluster.suffix}"}
    if "policyName" in made["spec"]:
        made["spec"]["policyName"] += f"-{cluster.suffix}"
        expressions = {"matchExpressions": [_only(cluster)]}
        made["spec"]["matchResources"] = {"namespaceSelector": expressions}
    return made


def _only(cluster: Cluster) -> Object:
    return {
        "key": "kubernetes.io/metadata.name",
        "operator": "In",
        "values": [cluster.namespace],
    }
