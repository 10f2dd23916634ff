"""A process for the tests of demo.processes: `python -m tests.demo.child MODE`."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())  # noqa: TID251

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


def main(mode: str, port: int) -> None:
    if mode == "broken":
        sys.exit("no such table: widgets")
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    HTTPServer(("127.0.0.1", port), _Ready).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
