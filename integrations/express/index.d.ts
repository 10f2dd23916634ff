import type { IncomingMessage, ServerResponse } from "node:http";

export interface Options {
  /** The upstream that every tool needs; leave it out where the resource has only one. */
  upstream?: string;
  /** Ask about every request but OPTIONS, so that the sidecar's check is the server's own. */
  requireJwt?: boolean;
  /** Answer the RFC 9728 document's paths from the sidecar's document. */
  serveMetadata?: boolean;
  /** The sidecar; `process.env.TOKENWARD_URL` by default. */
  url?: string;
  /** Where refusals are reported, without tokens; `console.error` for mistakes by default. */
  log?: (refusal: TokenError) => void;
}

export type Middleware = (
  request: IncomingMessage,
  response: ServerResponse,
  next: (error?: unknown) => void,
) => Promise<void>;

/**
 * Middleware for Express 4 and 5 and, with a function as `next`, for plain `http`: asks the sidecar
 * before each POST that carries a JWT, at most once a request. Throws TypeError for a wrong `url`.
 */
export function tokenward(options?: Options): Middleware;

export interface Question {
  /** May be left out where the resource has one upstream, or the middleware names one. */
  upstream?: string;
  /** Seconds (0 to 600) that the token must live at least. */
  minTtl?: number;
  /** One that the upstream's API refused; a fresh one is obtained, once. */
  rejectedToken?: string;
  /**
   * Scopes that the API wants, with spaces between. Where the user has not granted them, this rejects
   * with InsufficientScope, and the MCP client is asked to get them.
   */
  missingScope?: string;
  /** The request being answered, for code that has lost its asynchronous context. */
  request?: IncomingMessage;
}

/** The access token of the user whose request is being answered. Rejects with TokenError or NoCaller. */
export function token(question?: Question): Promise<string>;

/**
 * The result of `call(accessToken)`; where `refused` says so, once more with a fresh token.
 * `refused` is by default: the result's `status` or `statusCode` is 401.
 */
export function withToken<T>(
  call: (accessToken: string) => T | Promise<T>,
  options?: {
    upstream?: string;
    request?: IncomingMessage;
    refused?: (answer: T) => boolean;
  },
): Promise<T>;

export type Action = "reauthenticate" | "retry" | "fix_request" | "none";

/** There is no token. The fields are the members of the sidecar's answer. */
export class TokenError extends Error {
  readonly error: string;
  readonly errorDescription: string;
  readonly action: Action;
  /** HTTP status of the sidecar's answer. */
  readonly status: number;
  /** Names this call in the sidecar's log; undefined where no sidecar answered. */
  readonly requestId?: string;
  /** A page where the user can mend it, where there is one. */
  readonly connectUrl?: string;
  /** Values of `WWW-Authenticate`, ready for the MCP client. */
  readonly challenges: readonly string[];
  readonly retryAfter?: string;
  /** What the MCP client will ask its user for, where a scope is missing. */
  readonly scope?: string;
}

/** 401: the user has to sign in again, or to open `connectUrl`. */
export class SignInRequired extends TokenError {}

/** 403: the user has not granted a scope. Without `scope` they have declined it: do not ask again. */
export class InsufficientScope extends TokenError {}

/** 429 or 503: try again later. It is not the user's fault; never ask for a sign-in. */
export class TemporarilyUnavailable extends TokenError {}

/** Nobody's request is being answered here, or it came without a JWT. */
export class NoCaller extends Error {}
