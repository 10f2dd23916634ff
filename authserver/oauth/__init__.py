"""The grammar of OAuth: scopes, errors, PKCE, redirect URIs, resources. No I/O and no state.

Every other package of the authserver may import this one; it imports none of them.
"""
