"""Authorities and the certificates that they sign. Nothing here knows an API."""
