// An MCP server of the official TypeScript SDK, version 1 or 2, with our middleware behind the SDK's
// own check of the JWT: one whose signature reads `good` is good. See server.py.
import { randomUUID } from "node:crypto";

import { token, tokenward } from "tokenward-mcp";

const [, , kind] = process.argv;
const claimsOf = (jwt) => JSON.parse(Buffer.from(jwt.split(".")[1], "base64url").toString());

const verifier = (refused) => ({
  async verifyAccessToken(jwt) {
    if (jwt.split(".")[2] !== "good") throw refused("this token is not good");
    const expiresAt = Math.floor(Date.now() / 1000) + 600;
    return { token: jwt, clientId: claimsOf(jwt).client_id, scopes: [], expiresAt };
  },
});

async function whoami() {
  const structuredContent = { token: await token() };
  return { structuredContent, content: [{ type: "text", text: JSON.stringify(structuredContent) }] };
}

async function version1() {
  const { default: express } = await import("express");
  const { McpServer } = await import("@modelcontextprotocol/sdk/server/mcp.js");
  const { StreamableHTTPServerTransport } = await import(
    "@modelcontextprotocol/sdk/server/streamableHttp.js"
  );
  const { requireBearerAuth } = await import(
    "@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js"
  );
  const { InvalidTokenError } = await import("@modelcontextprotocol/sdk/server/auth/errors.js");

  const app = express();
  const check = requireBearerAuth({ verifier: verifier((text) => new InvalidTokenError(text)) });
  return { app, check, McpServer, Transport: StreamableHTTPServerTransport, express };
}

async function version2() {
  const { createMcpExpressApp, requireBearerAuth } = await import("@modelcontextprotocol/express");
  const { NodeStreamableHTTPServerTransport } = await import("@modelcontextprotocol/node");
  const { McpServer, OAuthError, OAuthErrorCode } = await import("@modelcontextprotocol/server");

  const app = createMcpExpressApp();
  const refused = (text) => new OAuthError(OAuthErrorCode.InvalidToken, text);
  const check = requireBearerAuth({ verifier: verifier(refused) });
  return { app, check, McpServer, Transport: NodeStreamableHTTPServerTransport };
}

const { app, check, McpServer, Transport } = await (kind === "typescript_1" ? version1() : version2());
const sessions = new Map();

app.all("/mcp", check, tokenward(), async (request, response) => {
  let transport = sessions.get(request.headers["mcp-session-id"]);
  if (transport === undefined) {
    transport = new Transport({
      sessionIdGenerator: () => randomUUID(),
      onsessioninitialized: (id) => void sessions.set(id, transport),
    });
    const server = new McpServer({ name: "notes", version: "1.0.0" });
    server.registerTool("whoami", { description: "Say whose token this is." }, whoami);
    await server.connect(transport);
  }
  await transport.handleRequest(request, response, request.body);
});

const listening = app.listen(0, "127.0.0.1", () => console.log(listening.address().port));
