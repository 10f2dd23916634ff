"""What a configuration without faults leads to, told by `--check`: nothing is changed.

What is allowed and hardly meant, the redirect URI to register at each upstream, and how many users
of this storage would have to sign in again because no registration here is the one that their
tokens were given to.
"""

from collections import Counter
from collections.abc import Iterator

from authserver.admin.keys import Say
from authserver.admin.redirect_uris import to_register
from authserver.config.exchanged_upstreams import ExchangedUpstream
from authserver.config.settings import Settings
from authserver.live_config import LiveConfig
from authserver.storage.absent_registrations import Registered
from authserver.storage.contract import Database, StorageOpenError, StorageUnavailable
from authserver.storage.engines.open import open_database
from authserver.upstream.http_client import UpstreamHttp
from chassis.clock import Clock


async def tell(settings: Settings, clock: Clock, say: Say) -> None:
    """Say it, a line each. Storage that cannot be asked is no fault of the configuration."""
    for warning in _warnings(settings):
        say(f"warning: {warning}")
    for one in to_register(settings):
        say(f"upstreams[{one.upstream}]: the redirect URI to register there is {one.redirect_uri}")
    try:
        database = await open_database(
            settings.storage.url, settings.storage.password, migrates=False
        )
    except StorageOpenError as unusable:
        say(f"storage: users were not counted: {unusable}")
        return
    try:
        await _tell_of_users(settings, database, clock, say)
    except StorageUnavailable as down:
        say(f"storage: users were not counted: {down}")
    finally:
        await database.close()


def _warnings(settings: Settings) -> Iterator[str]:
    """What can be started with, and would surprise."""
    yield from _of_exchanges(settings)
    for index, entry in enumerate(settings.resources):
        owner = entry.entry().owner
        if not settings.allowed_workloads.admit(owner):
            yield (
                f"resources[{index}].workload: {owner} is not in allowedWorkloads, so nothing is"
                " released to it"
            )
    listeners = settings.listeners
    ports = Counter(one.port for one in (listeners.public, listeners.internal, listeners.ops))
    for port, count in ports.items():
        if port and count > 1:
            yield f"listeners: {count} of them have port {port}"
    lifetimes = settings.lifetimes
    if lifetimes.refresh_token_idle > lifetimes.refresh_token_absolute:
        yield (
            "lifetimes.refreshTokenIdle: is longer than refreshTokenAbsolute, which ends every"
            " session first"
        )


def _of_exchanges(settings: Settings) -> Iterator[str]:
    """Tokens that are kept apart by an exchange, and are to be had whole all the same."""
    parents = {
        one.name: one.exchange.upstream
        for one in settings.upstreams
        if isinstance(one, ExchangedUpstream)
    }
    exchange_only = {
        one.name
        for one in settings.upstreams
        if not isinstance(one, ExchangedUpstream) and one.exchange_only
    }
    for name in sorted(exchange_only - set(parents.values())):
        yield f"upstreams[{name}].exchangeOnly: nothing is made of it, so nothing is released"
    for index, entry in enumerate(settings.resources):
        for name in entry.entry().upstreams:
            parent = parents.get(name)
            if parent is not None and parent not in exchange_only:
                yield (
                    f"resources[{index}].upstreams: the server obtains {parent}'s own tokens beside"
                    f" those of {name}, which are made of them; `exchangeOnly: true` at {parent}"
                    " keeps them back"
                )


async def _tell_of_users(settings: Settings, database: Database, clock: Clock, say: Say) -> None:
    live = LiveConfig(settings, database, UpstreamHttp(), clock)
    named, absent = live.binding.named(), live.absent_registrations
    async for registered in absent.of_connections():
        if registered not in named:
            users = await absent.users(registered, int(clock()))
            say(_line(registered, users))


def _line(registered: Registered, users: int) -> str:
    upstream, registration = registered
    client = f"client {registration.client_id}" if registration.client_id else "a client"
    return (
        f"upstreams[{upstream}]: {users} user(s) must sign in again: their tokens were given to"
        f" {client} of {registration.authorization_server}, which is not in this file; put it back,"
        " or name it in `former`"
    )
