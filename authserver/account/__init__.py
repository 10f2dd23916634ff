"""The pages by which a person connects upstream accounts to sessions that clients already have.

Routes: GET and POST /connect/{link}, POST /connect/confirm, and their legs at the upstream, which
come back to GET /oauth/callback/{upstream}. Must not know aiohttp, a certificate or the internal
listener.
"""
