"""The JWTs of this server: the one user of joserfc, signing keys, access tokens, ID tokens.

Must not know a flow, an upstream or HTTP.
"""
