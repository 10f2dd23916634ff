"""The rotation of a signing key as docs/explanation/refresh-claims.md has it, over two replicas.

Each replica reads a change of the configuration in its own time, within the changeover. Whatever
one signs then, the other accepts, and nothing counts that an announced or removed key signed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from joserfc.jwk import ECKey
from msgspec.structs import replace

from authserver.tokens.access_tokens import AccessTokens
from authserver.tokens.jws import BadToken
from authserver.tokens.signing_keys import SigningKey, SigningKeys
from tests.support.forged_tokens import private_pem
from tests.support.pages import tables_of
from tests.support.storage_fixtures import NOW, ROOT, new_session

# Minutes on a machine that is busy with something else.
pytestmark = pytest.mark.timeout(400)

ISSUER: Final = "https://auth.example.com"
PAGE: Final = ROOT / "docs/explanation/refresh-claims.md"
# Longer than a changeover, so that a token outlives its key's retirement.
LIFETIME: Final = 3600
CHANGEOVER: Final = 300
STEP: Final = 50


def _transitions() -> dict[tuple[str, str], str]:
    (table,) = (
        rows
        for section, rows in tables_of(PAGE)
        if section == "The signing key" and len(rows[0]) == 3
    )
    return {(state, event): after for state, event, after in table[1:]}


def _states() -> dict[str, list[str]]:
    (table,) = (
        rows
        for section, rows in tables_of(PAGE)
        if section == "The signing key" and len(rows[0]) == 4
    )
    return {state: rest for state, *rest in table[1:]}


def _keys() -> Iterator[SigningKey]:
    while True:
        key = ECKey.import_key(private_pem(ec.generate_private_key(ec.SECP256R1())))
        yield SigningKey(key, "ES256", key.thumbprint())


@dataclass
class Replica:
    """One process: the keys in force there, and what is left to read of the configuration."""

    keys: SigningKeys
    tokens: AccessTokens
    behind: bool = False


@dataclass(frozen=True)
class Parts:
    """The code under test; a fault takes the place of one part."""

    keys: type[SigningKeys] = SigningKeys
    tokens: type[AccessTokens] = AccessTokens


class AtOnceKeys(SigningKeys):
    """A key that ceases to be the first retires in that moment."""

    def _retiring(self, key: SigningKey, before: str, now: float) -> SigningKey:
        retiring = super()._retiring(key, before, now)
        return replace(retiring, retired_at=now) if key.kid == before else retiring


class EarlyKeys(SigningKeys):
    """What an announced key signed counts."""

    def could_have_signed(self, kid: str | None, issued_at: float) -> bool:
        state = self._states.get(kid) if kid is not None else None
        return (state is not None and state.announced) or super().could_have_signed(kid, issued_at)


class RememberingTokens(AccessTokens):
    """A JWT that was verified once is known without a look at its key."""

    def verify(self, unverified_jwt: str, now: float, **options: object) -> object:  # type: ignore[override]
        remembered: dict[str, object] = self.__dict__.setdefault("remembered", {})
        if unverified_jwt not in remembered:
            remembered[unverified_jwt] = super().verify(unverified_jwt, now)
        return remembered[unverified_jwt]


class KeyMachine(RuleBasedStateMachine):
    parts: Parts
    table = _transitions()
    states = _states()

    @initialize()
    def start(self) -> None:
        self.now, self.source = float(NOW), _keys()
        first = next(self.source)
        self.configured: list[SigningKey] = [first]
        self.state = {first.kid: "signing"}
        self.by_kid = {first.kid: first}
        self.minted: list[tuple[str, str, float]] = []  # JWT, kid, signed at
        self.ceased: dict[str, float] = {}
        self.replicas = []
        for _ in range(2):
            keys = self.parts.keys(self.configured)
            self.replicas.append(Replica(keys, self.parts.tokens(ISSUER, keys, LIFETIME)))

    # The operator's steps; each waits until both replicas have read the one before.

    @precondition(lambda self: self._all_read() and "announced" not in self.state.values())
    @rule()
    def announce(self) -> None:
        key = next(self.source)
        self.by_kid[key.kid] = key
        self.state[key.kid] = "announced"
        self._configure([*self.configured, replace(key, announced=True)])

    @precondition(lambda self: self._all_read() and "announced" in self.state.values())
    @rule()
    def make_it_the_first(self) -> None:
        (kid,) = [kid for kid, state in self.state.items() if state == "announced"]
        before = self.configured[0].kid
        self._move(kid, "made the first")
        self._move(before, "another is made the first")
        self.ceased[before] = self.now
        others = [key for key in self.configured if key.kid != kid]
        self._configure([self.by_kid[kid], *others])

    @precondition(lambda self: self._all_read() and "retired" in self.state.values())
    @rule()
    def remove(self) -> None:
        (kid, *_) = [kid for kid, state in self.state.items() if state == "retired"]
        self._move(kid, "removed")
        self._configure([key for key in self.configured if key.kid != kid])

    @precondition(lambda self: not self._all_read())
    @rule(readers=st.sampled_from([(0, 1), (0,), (1,)]))
    def read_the_configuration(self, readers: tuple[int, ...]) -> None:
        for replica in (self.replicas[number] for number in readers):
            if replica.behind:
                replica.keys.replace(self.configured, self.now)
                replica.behind = False

    @rule()
    def time_passes(self) -> None:
        """While a replica is behind, no longer than the changeover allows."""
        behind_since = getattr(self, "changed_at", self.now)
        if self._all_read() or self.now + STEP - behind_since <= CHANGEOVER - STEP:
            self.now += STEP

    # What clients do.

    @rule(data=st.data())
    def sign(self, data: st.DataObject) -> None:
        replica = data.draw(st.sampled_from(self.replicas))
        jwt = replica.tokens.mint(new_session(), jti=str(len(self.minted)), now=int(self.now))
        self.minted.append((jwt, replica.keys.active.kid, self.now))

    @precondition(lambda self: self.minted)
    @rule(data=st.data())
    def present(self, data: st.DataObject) -> None:
        """What any replica signed, any replica accepts, unless its key was removed."""
        jwt, kid, at = data.draw(st.sampled_from(self.minted))
        replica = data.draw(st.sampled_from(self.replicas))
        if self.state[kid] == "removed" and replica.behind:
            return  # it may be read or not
        wanted = self.state[kid] != "removed" and self.now < at + LIFETIME
        assert self._accepts(replica, jwt) == wanted, (self.state[kid], self.now - at)

    @rule(data=st.data())
    def thief_signs(self, data: st.DataObject) -> None:
        """A stolen key's signature counts only where the page says so."""
        kid = data.draw(st.sampled_from(list(self.state)))
        replica = data.draw(st.sampled_from(self.replicas))
        if replica.behind:
            return
        forger = AccessTokens(ISSUER, SigningKeys([self.by_kid[kid]]), LIFETIME)
        jwt = forger.mint(new_session(), jti="forged", now=int(self.now))
        _, _, accepted = self.states[self.state[kid]]
        assert accepted in ("yes", "no") or self.state[kid] == "retired"
        if self.state[kid] != "retired":
            assert self._accepts(replica, jwt) == (accepted == "yes"), self.state[kid]
        elif self.now > self.ceased[kid] + 2 * CHANGEOVER:
            assert not self._accepts(replica, jwt), "signed long after its key had retired"

    @invariant()
    def the_jwks_and_the_signer_are_as_the_page_says(self) -> None:
        for replica in getattr(self, "replicas", []):
            if replica.behind:
                continue
            published = {key["kid"] for key in replica.keys.jwks()["keys"]}
            for kid, state in self.state.items():
                in_jwks, signs, _ = self.states[state]
                assert (kid in published) == (in_jwks == "yes"), state
                assert (kid == replica.keys.active.kid) == (signs == "yes"), state

    def _all_read(self) -> bool:
        return not any(replica.behind for replica in getattr(self, "replicas", []))

    def _move(self, kid: str, event: str) -> None:
        self.state[kid] = self.table[self.state[kid], event]

    def _configure(self, keys: list[SigningKey]) -> None:
        self.configured, self.changed_at = keys, self.now
        for replica in self.replicas:
            replica.behind = True

    def _accepts(self, replica: Replica, jwt: str) -> bool:
        try:
            replica.tokens.verify(jwt, self.now)
        except BadToken:
            return False
        return True


def walk(parts: Parts, examples: int) -> None:
    """Run the machine; an AssertionError says what a sequence came to."""
    machine = type("Machine", (KeyMachine,), {"parts": parts})
    bounds = settings(
        max_examples=examples,
        phases=(Phase.generate,),
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=bounds)


def test_a_rotation_is_as_the_page_says(model_examples: int) -> None:
    walk(Parts(), 2 * model_examples)


@pytest.mark.parametrize(
    "fault",
    [Parts(keys=AtOnceKeys), Parts(keys=EarlyKeys), Parts(tokens=RememberingTokens)],
    ids=["at-once", "early", "remembering"],
)
def test_faults_are_found(fault: Parts) -> None:
    with pytest.raises(AssertionError):
        walk(fault, 500)
