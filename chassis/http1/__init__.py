"""A small HTTP/1.1 server for listeners that only programs call, and a client of one host.

It owns framing, limits, deadlines, keep-alive, back-pressure and draining; it knows no route and
no token. A handler is a function from a `Request` to a response. What is ambiguous is refused with
400, and the connection ends (RFC 9112).
"""
