"""Hands the MCP server of this pod its user's upstream token, on a localhost call.

Owns the workload's client certificate and a short memory of tokens the authserver released.
Routes: `POST /v1/token` and the protected-resource document on 127.0.0.1; probes and metrics
on the ops port. Must not know: how a JWT is verified, who owns a resource, how a token is
refreshed. The authserver decides all of that; a memory entry exists only because it said yes.
"""
