"""Why a request has no usable response. No text here holds what a peer sent."""


class NoResponse(Exception):
    """There is no usable response; the class says why."""


class Unreachable(NoResponse):
    """No connection came about."""


class ProxyRefused(Unreachable):
    """The proxy did not open a tunnel."""


class Untrusted(NoResponse):
    """The server's certificate is not accepted, or it speaks no TLS of ours."""


class Disconnected(NoResponse):
    """The connection ended before the first byte of a response."""


class BadResponse(NoResponse):
    """What came is malformed, too long, or broke off."""


class TooSlow(NoResponse):
    """The peer did not read, or did not answer, in time."""
