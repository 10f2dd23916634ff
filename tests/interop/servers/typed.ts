// Compiles only while index.d.ts says what the package does.
import { createServer } from "node:http";

import express from "express";
import { NoCaller, SignInRequired, TokenError, token, tokenward, withToken } from "tokenward-mcp";
import type { Middleware, Options } from "tokenward-mcp";

const options: Options = { upstream: "github", requireJwt: true, serveMetadata: true };
const middleware: Middleware = tokenward(options);

const app = express();
app.use(tokenward());
app.post("/mcp", middleware, (_request, response) => void response.end());
createServer((request, response) => void middleware(request, response, () => response.end()));

export async function tool(): Promise<string> {
  try {
    const answer = await withToken((it) => fetch("https://api.example", { headers: { it } }));
    return `${answer.status} ${await token({ upstream: "slack", minTtl: 60 })}`;
  } catch (error) {
    if (error instanceof SignInRequired) return error.connectUrl ?? error.challenges.join();
    if (error instanceof TokenError) return `${error.error} ${error.requestId ?? ""}`;
    if (error instanceof NoCaller) return error.message;
    throw error;
  }
}

// @ts-expect-error - upstream is a text
tokenward({ upstream: 1 });
