"use strict";
// Every way the sidecar says no, as errors that carry what it said.

class TokenError extends Error {
  constructor(error, errorDescription, members) {
    const where = members.requestId ? `, request ${members.requestId}` : "";
    const mend = members.connectUrl ? ` Open ${members.connectUrl} to connect it.` : "";
    super(`${errorDescription} (${error}${where})${mend}`);
    this.name = new.target.name;
    this.error = error;
    this.errorDescription = errorDescription;
    this.action = members.action ?? "none";
    this.status = members.status;
    this.requestId = members.requestId;
    this.connectUrl = members.connectUrl;
    this.challenges = members.challenges ?? [];
    this.retryAfter = members.retryAfter;
    this.scope = members.scope;
  }

  /** The members for a JSON answer; absent ones are left out. */
  members() {
    return {
      error: this.error,
      error_description: this.errorDescription,
      action: this.action,
      request_id: this.requestId,
      connect_url: this.connectUrl,
      scope: this.scope,
    };
  }
}

class SignInRequired extends TokenError {}

class InsufficientScope extends TokenError {}

class TemporarilyUnavailable extends TokenError {}

/** 400: the MCP client's request can be read in two ways. */
class AmbiguousRequest extends TokenError {
  constructor(errorDescription) {
    super("invalid_request", errorDescription, { status: 400, action: "fix_request" });
  }
}

class NoCaller extends Error {
  constructor() {
    super(
      "No request with a JWT is being answered here. Is tokenward() in front of this server, and is " +
        "this code called by a tool? Elsewhere, pass the request: token({ request }).",
    );
    this.name = "NoCaller";
  }
}

/** No usable answer came from the sidecar. */
function unavailable(errorDescription) {
  return new TemporarilyUnavailable("temporarily_unavailable", errorDescription, {
    status: 503,
    action: "retry",
    retryAfter: "2",
  });
}

module.exports = {
  AmbiguousRequest,
  InsufficientScope,
  NoCaller,
  SignInRequired,
  TemporarilyUnavailable,
  TokenError,
  unavailable,
};
