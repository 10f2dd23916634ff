"use strict";
// Whose request is being answered, and that user's tokens: what a tool calls.

const { AsyncLocalStorage } = require("node:async_hooks");

const { InsufficientScope, NoCaller } = require("./errors.js");

// The sidecar is the one that remembers. This only spares the second question of one request.
const KEPT_MS = 5_000;

const current = new AsyncLocalStorage();
const byRequest = new WeakMap();

/** The user behind one HTTP request, known by the JWT that came with it. */
class Caller {
  #sidecar;
  #jwt;
  #upstream;
  #now;
  #challenges;
  #kept = new Map();

  constructor(sidecar, jwt, upstream, now, challenges) {
    this.#sidecar = sidecar;
    this.#jwt = jwt;
    this.#upstream = upstream;
    this.#now = now;
    this.#challenges = challenges;
  }

  /** Rejects with TokenError. */
  async token({ upstream = this.#upstream, minTtl = 0, rejectedToken, missingScope } = {}) {
    const may = rejectedToken === undefined && missingScope === undefined;
    const kept = may && this.#recall(upstream, minTtl);
    if (kept) return kept;
    const askedAt = this.#now();
    const found = await this.#ask({ upstream, minTtl, rejectedToken, missingScope });
    this.#kept.set(upstream, { found, askedAt });
    return found.accessToken;
  }

  async #ask(question) {
    try {
      return await this.#sidecar.ask(this.#jwt, question);
    } catch (error) {
      const asked = question.missingScope !== undefined && error instanceof InsufficientScope;
      if (asked && error.challenges.length > 0) this.#challenges.put(this.#jwt, error);
      throw error;
    }
  }

  #recall(upstream, minTtl) {
    const kept = this.#kept.get(upstream);
    if (kept === undefined) return undefined;
    const age = this.#now() - kept.askedAt;
    const { accessToken, expiresIn = Infinity } = kept.found;
    return age <= KEPT_MS && expiresIn - age / 1000 > minTtl ? accessToken : undefined;
  }
}

/** Run `next` so that what it starts answers `caller`, undefined for nobody. */
function runAs(caller, request, next) {
  if (caller !== undefined) byRequest.set(request, caller);
  current.run(caller, next);
}

function callerOf(request) {
  const caller = request === undefined ? current.getStore() : byRequest.get(request);
  if (caller === undefined) throw new NoCaller();
  return caller;
}

async function token({ request, ...question } = {}) {
  return callerOf(request).token(question);
}

function answered401(answer) {
  return answer?.status === 401 || answer?.statusCode === 401;
}

async function withToken(call, { upstream, request, refused = answered401 } = {}) {
  const first = await token({ upstream, request });
  const answer = await call(first);
  // A second refusal is returned, for a 401 may have other reasons.
  return refused(answer) ? call(await token({ upstream, request, rejectedToken: first })) : answer;
}

module.exports = { Caller, runAs, token, withToken };
