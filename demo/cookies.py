"""A browser's cookie jar for loopback: Secure and the name prefixes, paths and deletion.

Loopback is a trustworthy origin, so Secure cookies travel over its plain http. As in browsers,
ports do not separate cookies. Every cookie is host-only and lives until it is deleted.
"""

from dataclasses import dataclass
from http.cookies import CookieError, Morsel, SimpleCookie
from typing import Final

from yarl import URL

_TRUSTWORTHY_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Cookie:
    name: str
    value: str
    path: str
    secure: bool


class CookieJar:
    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], Cookie] = {}

    def take(self, url: URL, set_cookie: str) -> None:
        """Obey one Set-Cookie header of an answer from `url`; what browsers refuse is dropped."""
        try:
            parsed = SimpleCookie(set_cookie)
        except CookieError:
            return
        for morsel in parsed.values():
            if _refused(url, morsel):
                continue
            cookie = _cookie(url, morsel)
            key = (url.host or "", cookie.path, cookie.name)
            if _deletes(morsel):
                self._kept.pop(key, None)
            else:
                self._kept[key] = cookie

    def sent_to(self, url: URL) -> list[Cookie]:
        """The cookies a request to `url` carries, longest path first (RFC 6265 section 5.4)."""
        matching = [
            cookie
            for (host, _, _), cookie in self._kept.items()
            if host == url.host
            and _path_matches(url.path, cookie.path)
            and (not cookie.secure or _trustworthy(url))
        ]
        return sorted(matching, key=lambda cookie: -len(cookie.path))

    def clear(self) -> None:
        self._kept.clear()


def _cookie(url: URL, morsel: "Morsel[str]") -> Cookie:
    default = url.path.rpartition("/")[0] or "/"
    path = morsel["path"] if morsel["path"].startswith("/") else default
    return Cookie(morsel.key, morsel.value, path, bool(morsel["secure"]))


def _refused(url: URL, morsel: "Morsel[str]") -> bool:
    if morsel["domain"] and morsel["domain"].lstrip(".") != url.host:
        return True
    if morsel["secure"] and not _trustworthy(url):
        return True
    name = morsel.key.lower()
    if name.startswith("__host-"):
        return not morsel["secure"] or morsel["path"] != "/" or bool(morsel["domain"])
    return name.startswith("__secure-") and not morsel["secure"]


def _deletes(morsel: "Morsel[str]") -> bool:
    max_age = str(morsel["max-age"])
    return max_age == "0" or max_age.startswith("-") or "1970" in morsel["expires"]


def _trustworthy(url: URL) -> bool:
    return url.scheme == "https" or url.host in _TRUSTWORTHY_HOSTS


def _path_matches(path: str, cookie_path: str) -> bool:
    if path == cookie_path:
        return True
    return path.startswith(cookie_path if cookie_path.endswith("/") else cookie_path + "/")
