"""`python -m tests.cluster.fixed_admission FOLDER`: answers every review with the same patch.

It reads no more of a review than its uid, so no webhook in Python with the same patch can be much
faster. The folder has `tls.crt`, `tls.key` and the JSON patch as `patch.json`. Prints its port.
"""

import asyncio
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from chassis.tls import contexts

_ROOT: Final = Path(__file__).parents[2]
_PATCH: Final = "patch.json"
_UID: Final = re.compile(rb'"uid":"([0-9a-f-]{36})"')
_LENGTH: Final = re.compile(rb"(?i)content-length: (\d+)")
_END: Final = b"\r\n\r\n"
_ANSWER: Final = (
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":'
    b'{"uid":"%b","allowed":true,"patchType":"JSONPatch","patch":"%b"}}'
)


class Answering(asyncio.Protocol):
    """A connection whose peer sends one request after the other, as API servers do."""

    def __init__(self, patch: bytes) -> None:
        self._patch, self._arrived = b64encode(patch), b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        head, end, body = self._arrived.partition(_END)
        length, uid = _LENGTH.search(head), _UID.search(body)
        if not end or length is None or len(body) < int(length[1]) or uid is None:
            return
        self._arrived = b""
        answer = _ANSWER % (uid[1], self._patch)
        fields = b"Content-Type: application/json\r\nContent-Length: %d" % len(answer)
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + fields + _END + answer)


async def serve(folder: Path) -> None:
    pair = contexts.KeyPair(folder / "tls.crt", folder / "tls.key")
    patch = (folder / _PATCH).read_bytes()
    server = await asyncio.get_running_loop().create_server(
        lambda: Answering(patch), "127.0.0.1", 0, ssl=contexts.server_context(pair)
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


@contextmanager
def served(folder: Path, operations: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Such a process with this patch until the end of the block: its port and its id."""
    (folder / _PATCH).write_text(json.dumps(operations, separators=(",", ":")), "utf-8")
    command = [sys.executable, "-m", "tests.cluster.fixed_admission", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
