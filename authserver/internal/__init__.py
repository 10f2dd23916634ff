"""The mTLS listener for sidecars, and the decision to release a token.

`listener` takes one request and gives one audited answer; `exchange_request` reads its form;
`svid` turns a certificate into a workload; `token_exchange` is the release policy, in its order
(RFC 8693).
Route: POST /internal/token-exchange. Must not know a browser, a page or the public listener.
"""
