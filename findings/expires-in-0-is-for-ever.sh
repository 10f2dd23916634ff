#!/usr/bin/env bash
# x/oauth2 0.38, requests-oauthlib 2.0 and Authlib 1.9: an access token that lives for 0 seconds lives for ever.
#
# `expires_in` is one or more digits (RFC 6749 appendix A.14). A server that counts the rest of a session in whole
# seconds sends 0 in its last second. These three read 0 as if the member were absent, and know no end of that token:
# they refresh nothing and present it until something else fails. httpx-oauth and openid-client take it as ended,
# and refresh. So a server should not send less than 1.
#
# Source: x/oauth2 internal/token.go (tokenJSON.expiry), oauthlib/oauth2/rfc6749/parameters.py (parse_token_response)
# and clients/base.py, authlib/oauth2/rfc6749/wrappers.py (OAuth2Token).
# Seen: the lines below; with 1 instead of 0 all five know an end.
#
# Prints whether each client takes the token as ended a moment later; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  Authlib==1.9.10 requests==2.34.2 requests-oauthlib==2.0.0 oauthlib==4.0.1 httpx-oauth==0.17.0
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts openid-client@6.9.0
export GOCACHE="$work/.cache" GOMODCACHE="$work/.modules" GOFLAGS=-modcacherw
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/oauth2"
)

func main() {
	for _, seconds := range []string{"0", "1"} {
		endpoint := oauth2.Endpoint{TokenURL: os.Args[1] + seconds, AuthStyle: oauth2.AuthStyleInParams}
		config := oauth2.Config{ClientID: "c-1", ClientSecret: "secret", Endpoint: endpoint}
		token, err := config.Exchange(context.Background(), "x")
		if err != nil {
			panic(err)
		}
		time.Sleep(2 * time.Second)
		fmt.Printf("x/oauth2, expires_in %s: ended %t\n", seconds, !token.Valid())
	}
}
GO
{ go mod init show && go get golang.org/x/oauth2@v0.38.0 && go mod tidy; } 2> log || { cat log; exit 1; }
go build -o show .
cat > show.js <<'JS'
import { allowInsecureRequests, Configuration, refreshTokenGrant } from "openid-client";

const issuer = process.argv[2];
for (const seconds of ["0", "1"]) {
  const config = new Configuration({ issuer, token_endpoint: issuer + seconds }, "c-1", "secret");
  allowInsecureRequests(config);
  const token = await refreshTokenGrant(config, "r");
  await new Promise((resolve) => setTimeout(resolve, 2000));
  console.log(`openid-client, expires_in ${seconds}: ended ${token.expiresIn() === 0}`);
}
JS
cat > show.py <<'PY'
import asyncio
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # the endpoint is on loopback
from authlib.integrations.requests_client import OAuth2Session as Authlib
from httpx_oauth.oauth2 import BaseOAuth2
from oauthlib.oauth2 import TokenExpiredError
from requests_oauthlib import OAuth2Session as RequestsOAuthlib


class TokenEndpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        token = {"access_token": "t", "token_type": "Bearer", "refresh_token": "r"}
        body = json.dumps({**token, "expires_in": int(self.path[1:])}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def requests_oauthlib(url):
    client = RequestsOAuthlib("c-1", redirect_uri="https://app.example/callback")
    client.fetch_token(url, code="x", client_secret="secret")
    time.sleep(2)
    try:
        client._client.add_token("https://api.example/")  # what each request of the session begins with
    except TokenExpiredError:
        return True
    return False


def authlib(url):
    token = Authlib("c-1", "secret").fetch_token(url, code="x")
    time.sleep(2)
    return bool(token.is_expired(leeway=0))


def httpx_oauth(url):
    client = BaseOAuth2("c-1", "secret", "https://as.example/authorize", url)
    token = asyncio.run(client.get_access_token("x", "https://app.example/callback"))
    time.sleep(2)
    return token.is_expired()


server = ThreadingHTTPServer(("127.0.0.1", 0), TokenEndpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
lines = []
for client in (requests_oauthlib, authlib, httpx_oauth):
    for seconds in (0, 1):
        ended = str(client(f"{url}{seconds}")).lower()
        lines.append(f"{client.__name__}, expires_in {seconds}: ended {ended}")
for command in (["./show"], ["node", "show.js"]):
    run = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    lines += run.stdout.splitlines()
server.shutdown()
print("\n".join(lines))
for_ever = {line.split(",")[0] for line in lines if line.endswith("expires_in 0: ended false")}
assert len(lines) == 10, "this has changed"
assert all(line.endswith("ended true") for line in lines if "expires_in 1" in line), "this has changed"
assert for_ever == {"requests_oauthlib", "authlib", "x/oauth2"}, "this has changed"
PY
venv/bin/python show.py
