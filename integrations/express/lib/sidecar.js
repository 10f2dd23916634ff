"use strict";
// The call to the sidecar. Not `fetch`: through node:http neither the environment's proxies nor the
// headers that fetch adds (Sec-Fetch-Mode) can reach it.

const { Agent, request } = require("node:http");

const {
  InsufficientScope,
  SignInRequired,
  TemporarilyUnavailable,
  TokenError,
  unavailable,
} = require("./errors.js");

const METADATA_PATH = "/.well-known/oauth-protected-resource";

// The sidecar ends a question after nine seconds itself; this is for one that hangs.
const TIMEOUT_MS = 12_000;
const MAX_BYTES = 1024 * 1024;
// The sidecar listens on loopback alone and knows no other names. A JWT goes nowhere else.
const URL_SHAPE = /^(http:\/\/(?:127\.0\.0\.1|localhost):[0-9]{1,5})\/?$/;
const ACCESS_TOKEN = /^[\x21-\x7e]+$/; // RFC 6749 appendix A.12

class Sidecar {
  #base;
  #agent = new Agent({ keepAlive: true });

  /** `url` defaults to $TOKENWARD_URL; throws TypeError where it is none. */
  constructor(url = process.env.TOKENWARD_URL) {
    if (!url) {
      throw new TypeError(
        "TOKENWARD_URL is not set. Is the sidecar in this pod? " +
          "See `kubectl get pod -L tokenward.dev/injected`.",
      );
    }
    this.#base = URL_SHAPE.exec(url)?.[1];
    if (this.#base === undefined) throw new TypeError("TOKENWARD_URL must be http://127.0.0.1:<port>");
  }

  /** `{accessToken, expiresIn}`; rejects with TokenError. Without a JWT: the challenge alone. */
  async ask(jwt, question) {
    const body = JSON.stringify({
      upstream: question.upstream,
      min_ttl: question.minTtl || undefined,
      rejected_token: question.rejectedToken,
      missing_scope: question.missingScope,
    });
    const headers = {
      "X-Tokenward": "1",
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(body),
      ...(jwt === undefined ? {} : { Authorization: `Bearer ${jwt}` }),
    };
    return readAnswer(await this.#call("POST", "/v1/token", headers, body));
  }

  /** The RFC 9728 document as a Buffer; undefined where the sidecar knows no resource. */
  async metadata() {
    const answer = await this.#call("GET", METADATA_PATH, {}, "");
    if (answer.status === 404) return undefined;
    if (answer.status !== 200) throw readRefusal(answer);
    return answer.body;
  }

  async #call(method, path, headers, body) {
    try {
      return await this.#send(method, path, headers, body);
    } catch (error) {
      // The sidecar may close a kept connection in the moment in which it is used again.
      if (error.onKeptConnection) return this.#send(method, path, headers, body).catch(unreachable);
      return unreachable(error);
    }
  }

  #send(method, path, headers, body) {
    return new Promise((resolve, reject) => {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      const call = request(this.#base + path, { method, headers, agent: this.#agent, signal });
      call.on("error", (error) => {
        const kept = call.reusedSocket && error.code === "ECONNRESET";
        reject(Object.assign(error, { onKeptConnection: kept }));
      });
      call.on("response", (answer) => {
        const parts = [];
        let length = 0;
        answer.on("error", reject);
        answer.on("data", (part) => {
          parts.push(part);
          length += part.length;
          if (length > MAX_BYTES) answer.destroy(new Error("the answer is too long"));
        });
        answer.on("end", () => {
          resolve({ status: answer.statusCode, headers: answer, body: Buffer.concat(parts) });
        });
      });
      call.end(body);
    });
  }
}

function unreachable(error) {
  throw unavailable(`The sidecar cannot be reached (${error.code ?? error.name}).`);
}

function readAnswer(answer) {
  if (answer.status !== 200) throw readRefusal(answer);
  const { access_token: accessToken, expires_in: expiresIn } = membersOf(answer);
  if (typeof accessToken !== "string" || !ACCESS_TOKEN.test(accessToken)) {
    throw unavailable("The sidecar's answer holds no token.");
  }
  return { accessToken, expiresIn: Number.isInteger(expiresIn) ? expiresIn : undefined };
}

/** What the sidecar said no with; an answer that is not its own counts as an outage. */
function readRefusal({ status, headers, body }) {
  const members = membersOf({ body });
  const text = (name) => (typeof members[name] === "string" ? members[name] : undefined);
  if (status < 400 || text("error") === undefined || text("error_description") === undefined) {
    return unavailable(`What listens at TOKENWARD_URL answered ${status}.`);
  }
  return new (kindOf(status, text("error")))(text("error"), text("error_description"), {
    status,
    action: text("action"),
    requestId: text("request_id"),
    connectUrl: text("connect_url"),
    challenges: headers.headersDistinct["www-authenticate"] ?? [],
    retryAfter: headers.headers["retry-after"],
    scope: text("scope"),
  });
}

function kindOf(status, error) {
  if (status === 401) return SignInRequired;
  if (status === 403 && error === "insufficient_scope") return InsufficientScope;
  return status === 429 || status === 503 ? TemporarilyUnavailable : TokenError;
}

function membersOf({ body }) {
  try {
    const members = JSON.parse(body.toString());
    return members !== null && typeof members === "object" ? members : {};
  } catch {
    return {};
  }
}

module.exports = { METADATA_PATH, Sidecar };
