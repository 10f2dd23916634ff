"use strict";
// A tool learns that a scope is missing after its request has begun: how the client hears of it.
//
// The challenge takes the place of the server's answer, as long as nothing of its body has gone out:
// the head is held back until then. Where that is too late, the client's next message gets it.

const { createHash } = require("node:crypto");

const KEPT_MS = 60_000;
const MOST = 1_000;

/** At most one challenge for each JWT, given to its client once. `now` is in ms, monotonic. */
class Challenges {
  #now;
  #pending = new Map();

  constructor(now) {
    this.#now = now;
  }

  put(jwt, refusal) {
    this.#pending.set(keyOf(jwt), { refusal, until: this.#now() + KEPT_MS });
    if (this.#pending.size > MOST) this.#pending.delete(this.#pending.keys().next().value);
  }

  /** The challenge, and forget it. */
  take(jwt) {
    const key = keyOf(jwt);
    const found = this.#pending.get(key);
    this.#pending.delete(key);
    return found !== undefined && this.#now() < found.until ? found.refusal : undefined;
  }
}

function keyOf(jwt) {
  return createHash("sha256").update(jwt).digest("base64");
}

/**
 * Hold the head of `response` until its body begins. `taken()` gives the challenge that there is by
 * then; `answerOf(refusal)` what to send for it: `{status, headers, body}`.
 */
function holdHead(response, taken, answerOf) {
  const { writeHead, flushHeaders, write, end } = response;
  let head;
  let begun = false;
  let replaced = false;

  function begin() {
    if (begun) return;
    begun = true;
    const refusal = response.headersSent ? undefined : taken();
    if (refusal === undefined) {
      if (head !== undefined) writeHead.apply(response, head);
      return;
    }
    replaced = true;
    const { status, headers, body } = answerOf(refusal);
    for (const name of response.getHeaderNames()) {
      if (!name.startsWith("access-control-")) response.removeHeader(name);
    }
    writeHead.call(response, status, headers);
    end.call(response, body);
  }

  response.writeHead = (...given) => {
    if (begun) return replaced ? response : writeHead.apply(response, given);
    head = given;
    return response;
  };
  response.flushHeaders = () => {
    if (begun && !replaced) flushHeaders.call(response);
  };
  response.write = (...given) => {
    begin();
    if (!replaced) return write.apply(response, given);
    callbackOf(given)?.();
    return true;
  };
  response.end = (...given) => {
    begin();
    if (!replaced) return end.apply(response, given);
    callbackOf(given)?.();
    return response;
  };
}

function callbackOf(given) {
  return given.find((one) => typeof one === "function");
}

module.exports = { Challenges, holdHead };
