// The MCP Inspector's CLI, one process for each call, on the same lines as client.py.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

const [, , node, cli, url, tool = "whoami", parameters = "{}"] = process.argv;
const say = (word, what) => console.log(word, what);
const folder = process.env.CLIENT_STORE ?? `${process.env.HOME}/inspector`;

// Without a terminal it signs nobody in unless it may open a browser; `true` opens none.
const environment = {
  MCP_STORAGE_DIR: folder,
  MCP_INSPECTOR_SECRET_STORE: "file",
  MCP_AUTO_OPEN_ENABLED: "true",
  BROWSER: "true",
};

// Its own port is one for the whole machine; these tests run beside each other.
const callback = await new Promise((found) => {
  const probe = createServer().listen(0, "127.0.0.1", () => {
    const { port } = probe.address();
    probe.close(() => found(`http://127.0.0.1:${port}/oauth/callback`));
  });
});

let running;

function call() {
  const asked = ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", parameters];
  const how = ["--format", "json", "--quiet", "--transport", "http", "--callback-url", callback];
  const inspector = (running = spawn(node, [cli, "--cli", "--server-url", url, ...asked, ...how], {
    env: { ...process.env, ...environment },
  }));
  inspector.stdin.end("y\n"); // the answer, should it ask whether to sign in for more scopes
  let answer = "";
  let complaint = "";
  inspector.stdout.on("data", (part) => (answer += part));
  createInterface({ input: inspector.stderr }).on("line", (line) => {
    const address = line.match(/http:\S+\/oauth\/authorize\?\S+/);
    if (address) say("OPEN", address[0]);
    else complaint += line;
    console.error(line);
  });
  return new Promise((done) => inspector.on("close", () => done({ answer, complaint })));
}

// It reads the end from the token; of one that is no JWT it learns from a 401.
function expire() {
  const file = `${folder}/secrets.json`;
  const kept = JSON.parse(readFileSync(file, "utf8"));
  for (const [name, secret] of Object.entries(kept.secrets)) {
    if (!name.includes(":tokens:")) continue;
    kept.secrets[name] = JSON.stringify({ ...JSON.parse(secret), access_token: "over" });
  }
  writeFileSync(file, JSON.stringify(kept));
  say("RESULT", "null");
}

async function answered() {
  const { answer, complaint } = await call();
  console.error(answer);
  try {
    const { result } = JSON.parse(answer);
    const text = result.content.map((c) => c.text).join(" ");
    if (result.isError) say("ERROR", JSON.stringify(text));
    else say("RESULT", JSON.stringify(result.structuredContent ?? text));
  } catch {
    say("ERROR", JSON.stringify(complaint || "no answer"));
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "CALL") answered();
  if (line === "EXPIRE") expire();
  if (line.startsWith("BACK")) running.kill(); // a browser that reached nothing: its user ends it
});
