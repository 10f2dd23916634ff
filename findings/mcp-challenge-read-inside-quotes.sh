#!/usr/bin/env bash
# Official MCP SDKs (Python 1 and 2, TypeScript 1 and 2): a client reads its scope out of the prose of
# a challenge.
#
# A 401 may explain itself in error_description, a quoted string (RFC 6750 section 3). The clients do not
# parse the header: they search it for `scope=` and take what follows the first match, wherever it is. So
# a description that mentions a scope replaces the real parameter behind it, closing quote included, and
# the client asks the authorization server for a scope that nobody named.
#
# Source: mcp/client/auth/utils.py, extract_field_from_www_auth; dist/esm/client/auth.js,
# extractFieldFromWwwAuth. Both search for `scope=(?:"([^"]+)"|([^\s,]+))`.
# Seen: each of the four opens a sign-in with scope `admin"` where the parameter says scope="notes".
#
# Prints the scope of each client's authorization request; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts \
  @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0
for version in 1.30.0 2.3.0; do
  python3 -m venv "$version"
  "$version/bin/pip" install --quiet --disable-pip-version-check "mcp==$version"
done
cat > client.py <<'PY'
import asyncio
import sys
from importlib.metadata import version
from urllib.parse import parse_qs, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata

try:
    import httpx2 as httpx
except ImportError:
    import httpx

CALLBACK = "http://127.0.0.1:1/callback"


class Storage:
    async def get_tokens(self):
        return None

    async def set_tokens(self, tokens):
        pass

    async def get_client_info(self):
        return OAuthClientInformationFull(client_id="c-1", redirect_uris=[CALLBACK])

    async def set_client_info(self, info):
        pass


class Opened(Exception):
    pass


async def redirected(url):
    raise Opened(parse_qs(urlsplit(url).query)["scope"][0])


async def never():
    raise AssertionError


async def main(url):
    metadata = OAuthClientMetadata(redirect_uris=[CALLBACK], client_name="show")
    auth = OAuthClientProvider(url, metadata, Storage(), redirected, never)
    async with httpx.AsyncClient(auth=auth, trust_env=False) as http:
        try:
            await http.post(url, json={})
        except Opened as opened:
            print(f"mcp {version('mcp')} (Python)\t{opened}")


asyncio.run(main(sys.argv[1]))
PY
cat > show.js <<'JS'
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { promisify } from "node:util";

import * as v2 from "@modelcontextprotocol/client";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const challenge =
  'Bearer error="invalid_token", error_description="this token has not scope=admin", scope="notes"';
const server = createServer((request, response) => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const json = (status, body, headers = {}) => {
    response.writeHead(status, { "Content-Type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  };
  request.resume();
  if (request.url.startsWith("/.well-known/oauth-protected-resource")) {
    json(200, { resource: `${origin}/mcp`, authorization_servers: [origin], scopes_supported: ["notes"] });
  } else if (request.url.startsWith("/.well-known/")) {
    json(200, {
      issuer: origin,
      authorization_endpoint: `${origin}/authorize`,
      token_endpoint: `${origin}/token`,
      response_types_supported: ["code"],
      code_challenge_methods_supported: ["S256"],
    });
  } else {
    json(401, {}, { "WWW-Authenticate": challenge });
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/mcp`;

async function typescript(name, Transport) {
  let scope;
  const authProvider = {
    redirectUrl: "http://127.0.0.1:1/callback",
    clientMetadata: { redirect_uris: ["http://127.0.0.1:1/callback"] },
    clientInformation: () => ({ client_id: "c-1" }),
    tokens: () => undefined,
    saveTokens: () => {},
    codeVerifier: () => "v".repeat(43),
    saveCodeVerifier: () => {},
    redirectToAuthorization: (to) => void (scope = to.searchParams.get("scope")),
  };
  const transport = new Transport(new URL(url), { authProvider });
  await transport.start();
  await transport.send({ jsonrpc: "2.0", id: 1, method: "ping" }).catch(() => {});
  await transport.close();
  return `${name} (TypeScript)\t${scope}`;
}

console.log("the server sends  ", challenge);
const lines = [
  await typescript("sdk 1.32.2", StreamableHTTPClientTransport),
  await typescript("client 2.4.0", v2.StreamableHTTPClientTransport),
];
for (const version of ["1.30.0", "2.3.0"]) {
  const { stdout } = await promisify(execFile)(`${version}/bin/python`, ["client.py", url]);
  lines.push(stdout.trim());
}
let changed = false;
for (const line of lines) {
  const [name, scope] = line.split("\t");
  console.log(`${name} asks for scope ${scope}`);
  changed ||= scope !== 'admin"';
}
if (changed) throw new Error("this has changed");
process.exit(0);
JS
echo "node $(node --version)"
node show.js
