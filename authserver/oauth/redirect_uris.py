"""Redirect URIs: what may be registered, and what a request's URI must equal (RFC 8252, 9700).

Strings are compared as they were sent. A URL parser is used for one thing only: to read the
port of a loopback URI whose remainder equals a registered one.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlencode

MAX_LENGTH: Final = 2048

_HTTPS: Final = re.compile(
    r"https://[a-z0-9.-]+(?::[0-9]{1,5})?(?:[/?].*)?", re.ASCII | re.IGNORECASE
)
_LOOPBACK: Final = re.compile(
    r"(?P<host>http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>(?:[/?].*)?)",
    re.ASCII,
)
# RFC 8252 section 7.1 asks for a reverse domain name; real clients (cursor, vscode) use bare names.
_PRIVATE_USE: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9.+-]*):/.*", re.ASCII)
# Schemes of the network, of operating systems and of browsers: they lead to another machine or
# to a program that no MCP client is. From the IANA registry of URI schemes and vendors' lists.
_NOT_PRIVATE_USE: Final = frozenset(
    {
        "about", "acap", "adb", "afp", "aim", "app-prefs", "apt", "bitcoin", "blob", "bzr",
        "callto", "cap", "chrome", "chrome-extension", "chrome-search", "cid", "coap", "coaps",
        "content", "cvs", "data", "dav", "davs", "dict", "dns", "ed2k", "edge", "ethereum",
        "facetime", "facetime-audio", "feed", "file", "filesystem", "finger", "firefox", "fish",
        "ftp", "ftps", "geo", "git", "go", "gopher", "h323", "hcp", "hg", "http", "https",
        "iax", "icap", "im", "imap", "imaps", "info", "intent", "ipp", "ipps", "irc", "irc6",
        "ircs", "iris", "itms", "itms-apps", "itms-appss", "itms-services", "jar", "javascript",
        "jdbc", "jms", "jnlp", "jnlps", "ldap", "ldapi", "ldaps", "lastfm", "magnet", "mailto",
        "maps", "market", "mid", "microsoft-edge", "mms", "modem", "moz-extension", "msrp",
        "mtqp", "mumble", "mvn", "mqtt", "mqtts", "news", "nfs", "ni", "nntp", "oci", "odbc",
        "opaquelocktoken", "pkcs11", "pop", "pops", "prefs", "pres", "psql", "rdp", "redis",
        "res", "resource", "rlogin", "rmi", "rsync", "rtmp", "rtmps", "rtsp", "rtsps", "rtspu",
        "s3", "safari", "scp", "search", "search-ms", "secondlife", "sftp", "shell",
        "shortcuts", "shttp", "sieve", "sip", "sips", "skype", "sms", "smb", "smbs", "smtp",
        "smtps", "sms-to", "snmp", "soap", "ssh", "steam", "stun", "stuns", "svn", "tel",
        "telnet", "tftp", "tip", "tn3270", "turn", "turns", "tv", "udp", "urn", "vbs",
        "vbscript", "view-source", "vnc", "webcal", "webcals", "webdav", "webdavs", "ws", "wss",
        "wais", "wtai", "wyciwyg", "xcon", "xmpp", "z39.50", "z39.50r", "z39.50s",
    }
)  # fmt: skip
# Families of such schemes: git+ssh, ms-msdt, x-apple-reminder, windows.update ...
_NOT_PRIVATE_USE_FAMILIES: Final = re.compile(
    r"(?:ms-|x-apple|x-man-page|x-help|windows|apple|android-app|bzr\+|git\+|hg\+|svn\+|soap\.|itms).*"
)
_PLAIN: Final = re.compile(r"[\x21-\x7E]+", re.ASCII)


class InvalidRedirect(ValueError):
    """The URI cannot be registered; the text is a constant for the client's developer."""


def check_registrable(uri: str) -> None:
    """Accept https, http on a literal loopback host, private-use schemes; else InvalidRedirect."""
    if len(uri) > MAX_LENGTH:
        raise InvalidRedirect("a redirect URI is longer than 2048 characters")
    if _PLAIN.fullmatch(uri) is None or "\\" in uri:
        raise InvalidRedirect("a redirect URI has characters that a URI cannot have")
    if "#" in uri:
        raise InvalidRedirect("a redirect URI has a fragment")
    if "@" in uri.partition("?")[0].partition("://")[2].partition("/")[0]:
        raise InvalidRedirect("a redirect URI has user information")
    if not (_HTTPS.fullmatch(uri) or _LOOPBACK.fullmatch(uri) or is_private_use(uri)):
        raise InvalidRedirect(
            "a redirect URI must be https, http on 127.0.0.1, [::1] or localhost,"
            " or of a private-use scheme"
        )


def is_registrable(uri: str) -> bool:
    """Whether `check_registrable` accepts `uri`."""
    try:
        check_registrable(uri)
    except InvalidRedirect:
        return False
    return True


def is_private_use(uri: str) -> bool:
    """Whether the URI is of a scheme that an application has for itself, such as `cursor://`."""
    match = _PRIVATE_USE.fullmatch(uri)
    if match is None:
        return False
    scheme = match["scheme"]
    return scheme not in _NOT_PRIVATE_USE and not _NOT_PRIVATE_USE_FAMILIES.fullmatch(scheme)


def matches(requested: str, registered: Iterable[str]) -> bool:
    """Whether `requested` is a registered URI, or differs from a loopback one by its port only."""
    registered = tuple(registered)
    if requested in registered:
        return True
    requested_uri = _LOOPBACK.fullmatch(requested)
    if requested_uri is None or _PLAIN.fullmatch(requested) is None or "#" in requested:
        return False
    if requested_uri["port"] is not None and not 0 < int(requested_uri["port"]) < 65536:
        return False
    candidates = (_LOOPBACK.fullmatch(uri) for uri in registered)
    return any(
        known is not None
        and (known["host"], known["rest"]) == (requested_uri["host"], requested_uri["rest"])
        for known in candidates
    )


def is_local_application(uri: str) -> bool:
    """Whether the URI leads to a program on the user's machine rather than to a web site."""
    return _HTTPS.fullmatch(uri) is None


def display_target(uri: str) -> str:
    """What the consent page says of where the user will be sent: the host, or the scheme."""
    scheme, _, rest = uri.partition(":")
    host = rest.removeprefix("//").partition("/")[0].partition("?")[0]
    return host if scheme.lower() in ("http", "https") else f"{scheme}:"


def authorization_response_url(
    redirect_uri: str, *, issuer: str, state: str | None, **answer: str
) -> str:
    """An authorization response: the one place that builds it, so `iss` is never missing.

    RFC 6749 section 4.1.2 and RFC 9207. The client's `state` goes back byte for byte.
    """
    query = answer | ({"state": state} if state is not None else {}) | {"iss": issuer}
    separator = "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{separator}{urlencode(query, quote_via=quote)}"


def callback_uri(issuer: str, upstream: str) -> str:
    """Our redirect URI at an upstream, as it has to be registered there.

    One path per upstream, so that an answer of one cannot pass for another's (RFC 9700 section
    4.4.2).
    """
    return f"{issuer}/oauth/callback/{quote(upstream, safe='')}"
