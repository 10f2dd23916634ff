// A server of a few lines with our middleware: plain http, Express 4 or Express 5. From CommonJS.
const { AsyncResource } = require("node:async_hooks");
const http = require("node:http");

const { NoCaller, SignInRequired, token, tokenward, withToken } = require("tokenward-mcp");

const [, , kind, options] = process.argv;
const now = { seconds: 0 };
const middleware = tokenward({ ...JSON.parse(options), now: () => now.seconds * 1000 });
const inNoRequest = AsyncResource.bind((what) => what());

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

const tools = {
  token: () => token(),
  body: async (request) => [await body(request), await token(), await token()],
  nothing: () => "no token was wanted",
  later: (request) => {
    now.seconds += Number(request.headers["x-age"]);
    return token({ minTtl: Number(request.headers["x-min-ttl"]) });
  },
  several: async () => [
    await token({ upstream: "slack" }),
    await token({ upstream: "slack" }),
    await token({ upstream: "slack", rejectedToken: "token-slack" }),
    await token(),
  ],
  retry: (request) =>
    withToken((it) => ({ status: it === request.headers["x-accepted"] ? 200 : 401, it })),
  refusal: async () => {
    try {
      return await token({ upstream: "slack" });
    } catch (error) {
      const { name, message, action, requestId, connectUrl, challenges } = error;
      const isSignIn = error instanceof SignInRequired;
      return { name, message, error: error.error, action, requestId, connectUrl, challenges, isSignIn };
    }
  },
  missing: () => token({ missingScope: "repo" }).catch((error) => `${error.name}: ${error.scope}`),
  "no caller": async (request) => {
    const outside = await inNoRequest(() => token().catch((error) => error));
    return [outside instanceof NoCaller, await inNoRequest(() => token({ request }))];
  },
};

let resume;
async function answer(request, response) {
  if (request.url === "/resume") {
    resume();
    response.end();
  } else if (request.headers["x-tool"] === "stream") {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const resumed = new Promise((resolve) => (resume = resolve));
    response.write(`data: ${await token()}\n\n`);
    await resumed;
    response.end("data: 2\n\n");
  } else if (request.headers["x-tool"] === "begun") {
    response.write("begun ");
    response.end(await tools.missing());
  } else if (request.headers["x-tool"] === "events") {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Mcp-Session-Id": "x" });
    response.flushHeaders();
    const told = await tools.missing();
    response.write(`data: ${told}\n\n`);
    await new Promise((ended) => response.end("data: 2\n\n", ended));
  } else {
    const found = await tools[request.headers["x-tool"] ?? "token"](request);
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ found }));
  }
}

function application() {
  if (kind === "http") {
    return (request, response) => middleware(request, response, () => void answer(request, response));
  }
  const express = require(kind === "express4" ? "express4" : "express");
  const app = express();
  app.use(middleware);
  // Mounted below a path, where Express shortens request.url.
  const mounted = express.Router();
  mounted.use((request, response) => void answer(request, response));
  return app.use(mounted);
}

const server = http.createServer(application());
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
