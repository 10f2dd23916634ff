"""`tokenward explain`: what became of one request, from the logs of all processes.

Reads files and standard input, nothing else. The meanings are those of the reference pages
`denials.md`, `log-events.md` and `sidecar-api.md`; `meanings.json` is made of them.
"""

from tokenward.explain.command import explain

__all__ = ["explain"]
