"""The whole journey on loopback: a fake upstream, an MCP server, a client, and their runner.

`python -m demo` writes a working folder, starts every process of the product beside the fake
upstream and two sample MCP servers, signs two users in with a real MCP client and proves what
the product promises. The tests use the same parts: `pki` for certificates, `upstream` for an
OpenID provider, `browser` for the HTML pages. Only this package and the tests may import
several of the product's processes.
"""
