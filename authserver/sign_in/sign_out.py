"""Ending the browser session: the person signs out of this browser, and of nothing else."""

import hashlib
import hmac
from collections.abc import Mapping

from authserver.audit import Audit, Outcome, Subject
from authserver.handles import hash_of
from authserver.oauth.errors import UserFacingError
from authserver.sign_in.browser_session import BrowserLogin
from authserver.storage.browser_sessions import BrowserSessions, SignedIn

_NOT_FROM_HERE = (
    "This request to sign out did not come from the page of this server in this browser. "
    "Open the front page of this server and sign out there."
)


class SignOut:
    """GET / (the page with the form) and POST /sign-out."""

    def __init__(
        self, browser_login: BrowserLogin, sessions: BrowserSessions, audit: Audit
    ) -> None:
        self._browser_login, self._sessions, self._audit = browser_login, sessions, audit

    async def describe(self, session: str | None) -> tuple[SignedIn | None, str]:
        """Who is signed in at a browser, and the token that its form must bring back."""
        visitor = await self._browser_login.user_of(session)
        return visitor, _form_token(session) if session and visitor else ""

    async def handle(
        self, fields: Mapping[str, str], session: str | None, fetch_site: str | None
    ) -> None:
        """End the session of this browser. Raises UserFacingError for another site's request.

        The token proves that the form was ours: it is made from the session's handle, which no
        page of another site can read. `Sec-Fetch-Site` is the second look, as at consent.
        """
        if fetch_site not in (None, "same-origin"):
            raise UserFacingError("sign_out_from_another_site", _NOT_FROM_HERE, status=403)
        if session is None or not hmac.compare_digest(
            fields.get("token", "").encode(), _form_token(session).encode()
        ):
            raise UserFacingError("sign_out_incomplete", _NOT_FROM_HERE, status=403)
        visitor = await self._browser_login.user_of(session)
        await self._sessions.end(hash_of(session))
        if visitor is not None:
            self._audit.sign_out(Subject(visitor.user_id), Outcome.SUCCESS)


def _form_token(session: str) -> str:
    return hashlib.sha256(f"sign-out {session}".encode()).hexdigest()
