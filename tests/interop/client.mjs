// One MCP client of the official TypeScript SDK, version 1 or 2, on the same lines as client.py.
import { createInterface } from "node:readline";

const [, , kind, url, tool = "whoami", parameters = "{}"] = process.argv;
const REDIRECT_URI = "http://127.0.0.1:33419/callback";

const sdk =
  kind === "typescript_1"
    ? {
        ...(await import("@modelcontextprotocol/sdk/client/index.js")),
        ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
        ...(await import("@modelcontextprotocol/sdk/client/auth.js")),
      }
    : await import("@modelcontextprotocol/client");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const heard = async () => (await lines.next()).value;
const say = (word, what) => console.log(word, what);

// What a host application keeps for its user. It does what both SDKs document, and no more.
const kept = {};
const provider = {
  redirectUrl: REDIRECT_URI,
  clientMetadata: {
    redirect_uris: [REDIRECT_URI],
    client_name: `Official client, ${kind}`,
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (state) => void (kept.discovery = state),
  redirectToAuthorization: (address) => say("OPEN", address.toString()),
  invalidateCredentials: (scope) => {
    if (scope === "all" || scope === "client") delete kept.client;
    if (scope === "all" || scope === "tokens") delete kept.tokens;
    if (scope === "all" || scope === "verifier") delete kept.verifier;
    if (scope === "all" || scope === "discovery") delete kept.discovery;
  },
};

let client;
let transport;

async function once() {
  if (client === undefined) {
    transport = new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
    const fresh = new sdk.Client({ name: "interop", version: "1.0.0" });
    await fresh.connect(transport);
    client = fresh;
  }
  return client.callTool({ name: tool, arguments: JSON.parse(parameters) });
}

async function call() {
  try {
    return await once();
  } catch (error) {
    if (!(error instanceof sdk.UnauthorizedError)) throw error;
    const query = new URL((await heard()).replace(/^BACK /, "")).searchParams;
    await transport.finishAuth(query.get("code"), query.get("iss") ?? undefined);
    client = undefined;
    return once();
  }
}

for (let line = await heard(); line !== undefined; line = await heard()) {
  try {
    const result = await call();
    const text = result.content.map((c) => c.text).join(" ");
    if (result.isError) say("ERROR", JSON.stringify(text));
    else say("RESULT", JSON.stringify(result.structuredContent ?? text));
  } catch (error) {
    client = undefined;
    say("ERROR", JSON.stringify(`${error.name}: ${error.message}`));
  }
}
process.exit(0);
