#!/usr/bin/env bash
# Official TypeScript MCP SDK: at a 403 insufficient_scope version 1 refreshes and asks nobody.
#
# The challenge names a scope that the token lacks. With a refresh token in its hands, version 1.32.2
# presents that one, gets a token of the same scope, meets the same 403 and throws. Its user never
# sees a page. Version 2.4.0 opens a sign-in with the old scopes and the challenged one together.
# Known as https://github.com/modelcontextprotocol/typescript-sdk/issues/2255.
#
# Prints refreshes, sign-ins and the scope of the sign-in for each version; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts \
  @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0
cat > show.js <<'JS'
import { createServer } from "node:http";

import * as v2 from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

console.warn = () => {}; // the SDKs comment on what they do

let refreshes = 0;

// Resource server and authorization server in one. Every MCP request wants one scope more.
const server = createServer((request, response) => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const json = (status, body, headers = {}) => {
    response.writeHead(status, { "Content-Type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  };
  request.resume();
  if (request.url.startsWith("/.well-known/oauth-protected-resource")) {
    json(200, { resource: `${origin}/mcp`, authorization_servers: [origin] });
  } else if (request.url.startsWith("/.well-known/")) {
    json(200, {
      issuer: origin,
      authorization_endpoint: `${origin}/authorize`,
      token_endpoint: `${origin}/token`,
      response_types_supported: ["code"],
      code_challenge_methods_supported: ["S256"],
    });
  } else if (request.url === "/token") {
    refreshes += 1;
    json(200, { access_token: "new", token_type: "Bearer", refresh_token: "r2", scope: "mcp" });
  } else {
    const metadata = `${origin}/.well-known/oauth-protected-resource/mcp`;
    json(403, {}, {
      "WWW-Authenticate":
        `Bearer error="insufficient_scope", scope="mcp notes:write", resource_metadata="${metadata}"`,
    });
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = new URL(`http://127.0.0.1:${server.address().port}/mcp`);

async function shown(sdk) {
  refreshes = 0;
  const asked = [];
  let tokens = { access_token: "old", token_type: "Bearer", refresh_token: "r1", scope: "mcp" };
  const authProvider = {
    redirectUrl: "http://127.0.0.1:1/callback",
    clientMetadata: { redirect_uris: ["http://127.0.0.1:1/callback"] },
    clientInformation: () => ({ client_id: "c-1" }),
    saveClientInformation: () => {},
    tokens: () => tokens,
    saveTokens: (saved) => void (tokens = saved),
    invalidateCredentials: () => void (tokens = undefined),
    codeVerifier: () => "v".repeat(43),
    saveCodeVerifier: () => {},
    redirectToAuthorization: (address) => void asked.push(address.searchParams.get("scope")),
  };
  const transport = new sdk.StreamableHTTPClientTransport(url, { authProvider });
  const client = new sdk.Client({ name: "show", version: "1.0.0" });
  const error = await client.connect(transport).catch((thrown) => thrown.message);
  await transport.close();
  return `${refreshes} refreshes, ${asked.length} sign-ins [${asked}], ${error}`;
}

const expected = {
  "sdk 1.32.2": [{ Client, StreamableHTTPClientTransport }, /^1 refreshes, 0 sign-ins \[\], .*403/],
  "client 2.4.0": [v2, /^0 refreshes, 1 sign-ins \[mcp notes:write\], /],
};
let changed = false;
for (const [name, [sdk, pattern]] of Object.entries(expected)) {
  const found = await shown(sdk);
  console.log(`${name}: ${found}`);
  changed ||= !pattern.test(found);
}
if (changed) throw new Error("this has changed");
process.exit(0);
JS
echo "node $(node --version)"
node show.js
