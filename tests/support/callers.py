"""Whether the caller of a fake server still waits for its answer."""

import os
import socket

from aiohttp import web


def waits(request: web.Request) -> bool:
    """As the kernel knows it: our own loop may read of the end of a connection much later."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    of_transport = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(of_transport.fileno())) as ours:
        try:
            return ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
