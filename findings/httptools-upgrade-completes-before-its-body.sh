#!/usr/bin/env bash
# httptools 0.9: a request that offers an upgrade is complete before its body.
#
# A client may offer an upgrade with any request, and the server may ignore the offer and answer in
# HTTP/1.1 (RFC 9110 section 7.8). Java's HttpClient does so with its first POST (Upgrade: h2c). The parser
# calls on_message_complete behind the header, raises HttpParserUpgrade, and never calls on_body, although
# Content-Length said how long the body is. What is left over is the body, so a server that ignores the offer
# has to count it, or must not show the parser that header.
#
# Source: httptools/parser/parser.pyx, cb_on_headers_complete: it returns 1 at an upgrade, and llhttp skips the
# body then (its F_SKIPBODY).
# Seen: the callbacks below; the offset points at the body.
#
# Prints the callbacks for one POST with and without the offer; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check httptools==0.9.0
cat > "$work/show.py" <<'PY'
from importlib.metadata import version

import httptools

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
POST = b"POST /mcp HTTP/1.1\r\nHost: example.com\r\n%bContent-Length: 5\r\n\r\nhello"


class Callbacks(list):
    def on_headers_complete(self):
        self.append("headers complete")

    def on_body(self, body):
        self.append(f"body {body.decode()}")

    def on_message_complete(self):
        self.append("message complete")


def fed(raw):
    callbacks = Callbacks()
    try:
        httptools.HttpRequestParser(callbacks).feed_data(raw)
    except httptools.HttpParserUpgrade as upgrade:
        callbacks.append(f"HttpParserUpgrade, left over: {raw[upgrade.args[0]:].decode()}")
    return list(callbacks)


plain, offering = fed(POST % b""), fed(POST % OFFER)
print("httptools", version("httptools"))
print("without the offer:", ", ".join(plain))
print("with the offer:   ", ", ".join(offering))
assert plain == ["headers complete", "body hello", "message complete"], "this has changed"
assert offering == [
    "headers complete",
    "message complete",
    "HttpParserUpgrade, left over: hello",
], "this has changed"
PY
"$work/venv/bin/python" "$work/show.py"
