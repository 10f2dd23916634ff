"""What the pages of a connect link show: a step each, or one of these sentences."""

from typing import Final

from authserver.account.connect_subject import Application, ConnectSubject
from authserver.storage.records import Account
from authserver.values import Hidden, Value

NOT_FROM_HERE: Final = (
    "This answer did not come from the page of this server in this browser, or took too long. "
    "Open the link again."
)
NOT_YOURS: Final = (
    "This link was made for another person, and nothing was connected. If you have several "
    "accounts, open the link again and sign in with the one that your application uses."
)
OTHER_ACCOUNT: Final = (
    "That is another account than the one you are known by here, and nothing was connected. Open "
    "the link again and choose the account that you sign in with."
)
DECLINED: Final = "You declined, and nothing was connected. To connect, open the link again."
FAILED: Final = (
    "The provider did not give what is needed, and nothing was connected. Open the link again in a "
    "few minutes. If that does not help, tell the person who runs this server."
)


class SignInFirst(Value, frozen=True):
    """The page for a browser at which nobody, or somebody else, is signed in."""

    link: Hidden[str]
    token: Hidden[str]
    signed_in_as: Account | None = None


class ConnectPrompt(Value, frozen=True):
    """The page that says what is to be connected, before the upstream is asked."""

    subject: ConnectSubject
    token: Hidden[str]
    account: Account
    applications: tuple[Application, ...]


class Confirmation(Value, frozen=True):
    """The page that names the account that is about to be attached; `pending` is its handle.

    `session` is the handle of a browser session that began.
    """

    subject: ConnectSubject
    pending: Hidden[str]
    account: Account
    applications: tuple[Application, ...]
    session: Hidden[str | None] = None


class Connected(Value, frozen=True):
    """The end: attached, or called off."""

    subject: ConnectSubject
    account: Account
    attached: bool
