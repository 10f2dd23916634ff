"""The gateway door: a reverse proxy in front of an MCP server that knows nothing of OAuth.

It listens on the pod's address and forwards to the app on loopback. A request is forwarded only
after the authserver accepted its JWT, or where its path is open. Requests and responses are
written anew, never copied. Imported only where a gateway is configured.
"""
