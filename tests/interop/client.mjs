// One MCP client of the official TypeScript SDK, version 1 or 2, on the same lines as client.py.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [, , kind, url, tool = "whoami", parameters = "{}"] = process.argv;
const file = process.env.CLIENT_STORE && `${process.env.CLIENT_STORE}/kept.json`;
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
// With a folder, other processes have the same.
const kept = new Proxy({}, {
  get: (memory, name) => (file ? read() : memory)[name],
  set: (memory, name, value) => change(memory, (all) => void (all[name] = value)),
  deleteProperty: (memory, name) => change(memory, (all) => void delete all[name]),
});
const read = () => (existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {});

function change(memory, step) {
  const all = file ? read() : memory;
  step(all);
  if (file) {
    writeFileSync(`${file}.${process.pid}`, JSON.stringify(all));
    renameSync(`${file}.${process.pid}`, file);
  }
  return true;
}

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

// The first 401 and a later 403 may each open a sign-in within one call.
async function call() {
  for (let signIns = 0; ; signIns += 1) {
    try {
      return await once();
    } catch (error) {
      if (!(error instanceof sdk.UnauthorizedError) || signIns === 2) throw error;
      const query = new URL((await heard()).replace(/^BACK /, "")).searchParams;
      if (query.has("error")) throw new Error(`not signed in: ${query.get("error")}`);
      await transport.finishAuth(query.get("code"), query.get("iss") ?? undefined);
      client = undefined;
    }
  }
}

for (let line = await heard(); line !== undefined; line = await heard()) {
  try {
    if (line === "EXPIRE") {
      // The SDK learns from a 401 alone that its access token is over.
      kept.tokens = { ...kept.tokens, access_token: "over" };
      say("RESULT", "null");
      continue;
    }
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
