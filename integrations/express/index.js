"use strict";
// What is public. Plain `exports.name` lines, so that `import { name }` finds them.

const { tokenward } = require("./lib/middleware.js");
const { token, withToken } = require("./lib/caller.js");
const errors = require("./lib/errors.js");

exports.tokenward = tokenward;
exports.token = token;
exports.withToken = withToken;
exports.TokenError = errors.TokenError;
exports.InsufficientScope = errors.InsufficientScope;
exports.SignInRequired = errors.SignInRequired;
exports.TemporarilyUnavailable = errors.TemporarilyUnavailable;
exports.NoCaller = errors.NoCaller;
