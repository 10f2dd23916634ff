"""What two or more processes need: logs, probes, start and drain, SPIFFE IDs, TLS.

Each module has one closed subject and at least two processes that need it. Nothing here
knows a route, a token or a pod; this package imports none of the others.
"""
