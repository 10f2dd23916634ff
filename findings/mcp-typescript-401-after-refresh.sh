#!/usr/bin/env bash
# Official TypeScript MCP SDK, versions 1 and 2: a refresh that succeeds can lock a user out.
#
# At a 401 the client transport presents its refresh token. If that gives a token and the next answer
# is 401 again, the transport throws, keeps the tokens and does not open a sign-in; the next call does
# the same. So a server whose grant behind the session is gone gets the user back to a sign-in only if
# its token endpoint refuses the refresh with invalid_grant. The Python SDK opens a sign-in at the
# first 401.
#
# Prints how often each client opens a sign-in in three calls, for both answers of the token endpoint;
# fails if that changes.
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

const versions = { "sdk 1.32.2": { Client, StreamableHTTPClientTransport }, "client 2.4.0": v2 };

// Resource server and authorization server in one. Every MCP request is 401.
async function served(refreshWorks, use) {
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
      const tokens = { access_token: "new", token_type: "Bearer", refresh_token: "r2" };
      if (refreshWorks) json(200, tokens);
      else json(400, { error: "invalid_grant" });
    } else {
      const metadata = `${origin}/.well-known/oauth-protected-resource/mcp`;
      json(401, {}, { "WWW-Authenticate": `Bearer error="invalid_token", resource_metadata="${metadata}"` });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  await use(`http://127.0.0.1:${server.address().port}/mcp`);
  server.closeAllConnections();
  server.close();
}

async function signInsIn3Calls({ Client, StreamableHTTPClientTransport }, url) {
  let opened = 0;
  const first = { access_token: "old", token_type: "Bearer", refresh_token: "r1" };
  for (let call = 0; call < 3; call++) {
    let tokens = { ...first };
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
      redirectToAuthorization: () => void opened++,
    };
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider });
    const client = new Client({ name: "show", version: "1.0.0" });
    await client.connect(transport).catch((error) => (signInsIn3Calls.last = error.message));
    await transport.close();
  }
  return opened;
}

let changed = false;
for (const [name, sdk] of Object.entries(versions)) {
  for (const refreshWorks of [true, false]) {
    await served(refreshWorks, async (url) => {
      const opened = await signInsIn3Calls(sdk, url);
      const answer = refreshWorks ? "200" : "400 invalid_grant";
      console.log(`${name}: refresh answered ${answer}: ${opened} sign-ins, ${signInsIn3Calls.last}`);
      changed ||= opened !== (refreshWorks ? 0 : 3);
    });
  }
}
if (changed) throw new Error("this has changed");
process.exit(0);
JS
echo "node $(node --version)"
node show.js
