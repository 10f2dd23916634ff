"""The browser's way from /oauth/authorize to an authorization code.

Routes: GET /oauth/authorize, POST /oauth/consent, GET /oauth/callback/{upstream}.
`authorize` asks with a page or continues, `consent` reads the answer, `upstream_login` sends the
user to one upstream, `callback` redeems what comes back, `next_step` goes to the next upstream or
completes. Must not know aiohttp, a certificate or the internal listener.
"""
