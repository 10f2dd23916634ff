"""TLS for every process: contexts, the self handshake, CA bundles, reload when files change.

This file imports nothing, so that a module that needs `cryptography` never reaches the sidecar.
"""
