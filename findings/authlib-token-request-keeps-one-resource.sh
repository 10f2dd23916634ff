#!/usr/bin/env bash
# Authlib 1.9: two `resource` values go into the authorization request, and cannot go into a token request.
#
# RFC 8707 (section 2) repeats the parameter, and wants it in both requests. create_authorization_url takes a list and
# repeats it. fetch_token and refresh_token raise TypeError for the same list, also for two of `audience` in an RFC 8693
# exchange. A form that is encoded beforehand and given as `body` is read into a dict, so the last value is sent and
# nothing is said about the others: the token then is for one resource only. With requests-oauthlib 2.0 and httpx-oauth
# 0.17 already the authorization request is wrong: it has the text of a Python list as its one resource.
#
# Source: authlib/oauth2/rfc6749/parameters.py (prepare_grant_uri looks for lists, prepare_token_request does not),
# authlib/oauth2/client.py (OAuth2Client._token_request, _http_post: dict(url_decode(body))),
# https://github.com/authlib/authlib/issues/524, https://github.com/requests/requests-oauthlib/issues/558
# Seen: the lines below.
#
# Prints the values of `resource` that a server reads; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  Authlib==1.9.10 requests==2.34.2 requests-oauthlib==2.0.0 oauthlib==4.0.1 httpx-oauth==0.17.0
cat > "$work/show.py" <<'PY'
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from authlib.integrations.requests_client import OAuth2Session as Authlib
from httpx_oauth.oauth2 import BaseOAuth2
from requests_oauthlib import OAuth2Session as RequestsOAuthlib

BOTH = ["https://a.example/mcp", "https://b.example/mcp"]
AUTHORIZE, CALLBACK = "https://as.example/authorize", "https://app.example/callback"
forms = []


class TokenEndpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        forms.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        body = json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": 60}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def in_url(url):
    return parse_qs(urlsplit(url).query)["resource"]


def in_form(call, name="resource"):
    try:
        call()
    except TypeError as error:
        return f"TypeError {error}"
    return forms[-1][name]


server = ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
token = f"http://127.0.0.1:{server.server_port}/token"
client = Authlib("c-1", "secret", redirect_uri=CALLBACK)
exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
requests_oauthlib = RequestsOAuthlib("c-1", redirect_uri=CALLBACK)
httpx_oauth = BaseOAuth2("c-1", "secret", AUTHORIZE, token)
TEXT = [str(BOTH)]
ERROR = "TypeError 'str' object cannot be interpreted as an integer"
found = {
    "Authlib, authorization request": (in_url(client.create_authorization_url(AUTHORIZE, resource=BOTH)[0]), BOTH),
    "Authlib, code": (in_form(lambda: client.fetch_token(token, code="x", resource=BOTH)), ERROR),
    "Authlib, code, body encoded": (
        in_form(lambda: client.fetch_token(token, urlencode({"resource": BOTH}, doseq=True), code="x")), BOTH[1:],
    ),
    "Authlib, refresh": (in_form(lambda: client.refresh_token(token, refresh_token="r", resource=BOTH)), ERROR),
    "Authlib, exchange, audience": (
        in_form(lambda: client.fetch_token(token, grant_type=exchange, subject_token="s", audience=BOTH), "audience"),
        ERROR,
    ),
    "requests-oauthlib, authorization request": (
        in_url(requests_oauthlib.authorization_url(AUTHORIZE, resource=BOTH)[0]), TEXT,
    ),
    "httpx-oauth, authorization request": (
        in_url(asyncio.run(httpx_oauth.get_authorization_url(CALLBACK, extras_params={"resource": BOTH}))), TEXT,
    ),
}
server.shutdown()
for name, (value, _) in found.items():
    print(f"{name}: {value}")
assert all(value == expected for value, expected in found.values()), "this has changed"
PY
"$work/venv/bin/python" "$work/show.py"
