"""The one page a person sees at the fake upstream: its login form."""

from html import escape
from typing import Final

from aiohttp import web

from demo.upstream.grants import USERS

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in to Acme</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 4rem auto }}
  label, input, button {{ display: block; width: 100%; box-sizing: border-box; font: inherit }}
  input, button {{ padding: .5rem; margin: .25rem 0 1rem }}
</style>
<main>
<h1>Sign in to Acme</h1>
<p>Acme is the demo's fake upstream. Its users and passwords are public: {users}.</p>
{message}<form method="post" action="/login">
  <input type="hidden" name="transaction" value="{handle}">
  <label>User <input name="username" autocomplete="off" autofocus required></label>
  <label>Password <input name="password" type="password" autocomplete="off" required></label>
  <button>Sign in</button>
</form>
</main>
</html>
"""


def login_page(handle: str, *, refused: bool = False) -> web.Response:
    users = ", ".join(f"{user.login} / {user.password}" for user in USERS.values())
    message = '<p role="alert">No such user or wrong password.</p>\n' if refused else ""
    text = _PAGE.format(users=escape(users), message=message, handle=escape(handle))
    status = 403 if refused else 200
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)
