"""The control plane: custom resources in; keys, certificates, the resource map and status out.

It owns the kinds MCPAuthServer and MCPServerAuth, and every object made of them. It must not know
a token: it talks to the authserver through files that it renders, and to nobody else.
"""
