// mcp-remote as a desktop application runs it, over stdio, on the same lines as client.py.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { createInterface } from "node:readline";

const [, , proxy, url] = process.argv;
const say = (word, what) => console.log(word, what);
const answers = new Map();
let remote;
let next = 0;

function start() {
  remote = spawn(process.execPath, [proxy, url, "--allow-http"], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  createInterface({ input: remote.stderr }).on("line", (line) => {
    if (line.includes("/oauth/authorize?")) open(new URL(line.trim()));
    else console.error(line);
  });
  createInterface({ input: remote.stdout }).on("line", (line) => {
    const message = JSON.parse(line);
    answers.get(message.id)?.(message);
  });
  remote.on("exit", () => {
    for (const settle of answers.values()) settle({ error: { message: "mcp-remote has ended" } });
    remote = undefined;
  });
}

// It names the address before it listens for the browser; a person is slower than that.
function open(address) {
  const { hostname, port } = new URL(address.searchParams.get("redirect_uri"));
  const probe = connect({ host: hostname, port });
  probe.on("error", () => setTimeout(open, 50, address));
  probe.on("connect", () => {
    probe.destroy();
    say("OPEN", address.href);
  });
}

const write = (message) => remote.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);

function ask(method, params) {
  const id = next++;
  return new Promise((resolve) => {
    answers.set(id, resolve);
    write({ id, method, params });
  });
}

async function call() {
  if (remote === undefined) {
    start();
    const clientInfo = { name: "desktop", version: "1.0.0" };
    const hello = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo };
    const welcome = await ask("initialize", hello);
    if (welcome.error) return welcome;
    write({ method: "notifications/initialized" });
  }
  return ask("tools/call", { name: "whoami", arguments: {} });
}

// It learns from a 401 alone that its access token is over.
function expire() {
  const folder = process.env.MCP_REMOTE_CONFIG_DIR;
  for (const name of readdirSync(folder, { recursive: true })) {
    if (!name.endsWith("_tokens.json")) continue;
    const tokens = JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
    writeFileSync(`${folder}/${name}`, JSON.stringify({ ...tokens, access_token: "over" }));
  }
  say("RESULT", "null");
}

for await (const line of createInterface({ input: process.stdin })) {
  if (line === "EXPIRE") expire();
  if (line !== "CALL") continue;
  const { result, error } = await call();
  if (error) say("ERROR", JSON.stringify(error.message));
  else if (result.isError) say("ERROR", JSON.stringify(result.content.map((c) => c.text).join(" ")));
  else say("RESULT", JSON.stringify(result.structuredContent));
}
remote?.kill();
