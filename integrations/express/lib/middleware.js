"use strict";
// The middleware: asks the sidecar before the MCP server sees a request.
//
// A tool cannot answer 401, since HTTP has answered 200 before it runs. Here a refusal becomes an
// HTTP answer, and the MCP client refreshes or opens a sign-in. Bodies are never read, and of an
// answer only the head is held until its body begins: a tool may still find that a scope is missing.

const { Caller, runAs } = require("./caller.js");
const { AmbiguousRequest, TokenError, unavailable } = require("./errors.js");
const { METADATA_PATH, Sidecar } = require("./sidecar.js");
const { Challenges, holdHead } = require("./step_up.js");

const JWT = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}$/;
const WELL_KNOWN = "/.well-known/";

// What MCP clients act upon. Any other refusal is a mistake of this server or its operator.
const RELAYED = new Set([401, 403, 429, 503]);

const FOR_ANYONE = {
  "Access-Control-Allow-Origin": "*",
  "Access-Control-Allow-Methods": "GET",
  "Access-Control-Allow-Headers": "*",
};

function tokenward({
  upstream,
  requireJwt = false,
  serveMetadata = false,
  url,
  log = report,
  now = () => performance.now(),
} = {}) {
  const sidecar = new Sidecar(url);
  const challenges = new Challenges(now);

  async function admit(request, response) {
    const authorizations = request.headersDistinct.authorization ?? [];
    if (authorizations.length > 1) {
      // The server may read the other one, and act for another user than we asked about.
      throw new AmbiguousRequest("Authorization must be sent once.");
    }
    const jwt = bearerJwt(authorizations[0]);
    if (requireJwt && jwt === undefined) {
      await sidecar.ask(undefined, { upstream });
      throw unavailable("What listens at TOKENWARD_URL gives tokens to anybody.");
    }
    if (jwt === undefined) return undefined;
    const caller = new Caller(sidecar, jwt, upstream, now, challenges);
    if (request.method === "POST") {
      const challenge = challenges.take(jwt);
      if (challenge !== undefined) throw challenge;
    }
    if (requireJwt || request.method === "POST") await ask(caller);
    if (request.method === "POST") holdHead(response, () => challenges.take(jwt), answerOf);
    return caller;
  }

  return async function tokenwardMiddleware(request, response, next) {
    const path = (request.originalUrl ?? request.url).split("?", 1)[0];
    let caller;
    try {
      if (path.startsWith(WELL_KNOWN)) {
        if (serveMetadata && (await metadata(sidecar, request, response, path))) return;
      } else if (request.method !== "OPTIONS") {
        caller = await admit(request, response); // a browser's preflight carries no token
      }
    } catch (error) {
      if (!(error instanceof TokenError)) {
        next(error);
        return;
      }
      log(error);
      refuse(error, response);
      return;
    }
    runAs(caller, request, () => next());
  };
}

async function ask(caller) {
  try {
    await caller.token();
  } catch (error) {
    // The JWT and the connection are good; only code gets no token (attach).
    if (error.error !== "attach_only") throw error;
  }
}

function bearerJwt(authorization = "") {
  const [scheme, ...rest] = authorization.split(" ");
  const token = rest.join(" ").trim();
  return scheme.toLowerCase() === "bearer" && JWT.test(token) ? token : undefined;
}

/** Answer with the sidecar's challenge and `Retry-After`, and its words as JSON. */
function refuse(refusal, response) {
  if (response.headersSent || response.destroyed) return;
  const { status, headers, body } = answerOf(refusal);
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  send(response, status, body);
}

function answerOf(refusal) {
  const theirs = RELAYED.has(refusal.status) || refusal instanceof AmbiguousRequest;
  const status = theirs ? refusal.status : 500;
  const body = JSON.stringify(refusal.members());
  const headers = {
    "Cache-Control": "no-store",
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
  };
  if (status === 401 || (status === 403 && refusal.challenges.length > 0)) {
    headers["WWW-Authenticate"] = refusal.challenges.length > 0 ? refusal.challenges : ["Bearer"];
  }
  if (refusal.retryAfter !== undefined) headers["Retry-After"] = refusal.retryAfter;
  return { status, headers, body };
}

/**
 * Answer for the document's paths (RFC 9728 section 3.1: the plain one, and the one with the
 * resource's path behind it); false for every other request.
 */
async function metadata(sidecar, request, response, path) {
  if (!["GET", "HEAD", "OPTIONS"].includes(request.method)) return false;
  if (path !== METADATA_PATH && !path.startsWith(`${METADATA_PATH}/`)) return false;
  const document = await sidecar.metadata();
  if (document === undefined || !pathsOf(document).includes(path)) return false;
  for (const [name, value] of Object.entries(FOR_ANYONE)) response.setHeader(name, value);
  if (request.method === "OPTIONS") {
    response.statusCode = 204;
    response.end();
  } else {
    send(response, 200, document);
  }
  return true;
}

function pathsOf(document) {
  try {
    const { pathname } = new URL(JSON.parse(document.toString()).resource);
    return [METADATA_PATH, METADATA_PATH + (pathname === "/" ? "" : pathname)];
  } catch {
    throw unavailable("The sidecar's answer is no RFC 9728 document.");
  }
}

function send(response, status, body) {
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json");
  response.setHeader("Content-Length", Buffer.byteLength(body));
  response.end(body);
}

/** Only mistakes, and not the error's text: a link in it is for its user alone. */
function report(refusal) {
  if (!RELAYED.has(refusal.status)) {
    const { errorDescription, error, requestId } = refusal;
    console.error(`tokenward: no token: ${errorDescription} (${error}, request ${requestId})`);
  }
}

module.exports = { tokenward };
