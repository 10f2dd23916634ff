"""What an operator may say of exchanged upstreams, and the rules of narrower targets."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from authserver.admin.consequences import tell
from authserver.config.loader import load
from authserver.oauth.exchange_target import ExchangeTarget, WiderAudience, WiderScope
from chassis import clock
from chassis.process import ConfigurationError
from demo.pki import CertificateAuthority
from tests.support.deployment import configuration_of, write_material
from tests.support.exchanging import EXCHANGE, notes, orders

ACME: dict[str, Any] = {
    "name": "acme", "type": "oidc", "issuer": "https://acme.example.com", "clientId": "c",
}  # fmt: skip


def written(folder: Path, upstreams: list[Any], resources: list[Any]) -> Path:
    servers, workloads = (CertificateAuthority.create(name) for name in ("s", "w"))
    write_material(folder, servers, workloads)
    configuration = configuration_of(folder, "https://auth.example.com", "https://acme.example.com")
    listeners: Any = configuration["listeners"]
    listeners["public"]["behindTLSProxy"] = True
    file = folder / "authserver.yaml"
    changes = {"upstreams": upstreams, "resources": resources}
    file.write_text(yaml.safe_dump(configuration | changes))
    return file


def exchange(**members: Any) -> dict[str, Any]:
    return orders(exchange={**EXCHANGE, **members})


def test_an_exchanged_upstream_needs_no_type_and_no_client_of_its_own(tmp_path: Path) -> None:
    settings = load(written(tmp_path, [ACME, orders()], notes()))
    _, made = settings.upstreams
    assert made.type == "exchange"
    assert not made.names_its_user


FAULTS = [
    ("upstreams.1.exchange.upstream", [ACME, exchange(upstream="nobody")], notes("acme"),
     "users sign in at: acme"),
    ("upstreams.1.exchange.upstream",
     [ACME, exchange(upstream="more"), exchange(upstream="orders") | {"name": "more"}],
     notes("acme"), "no circle and no chain"),
    ("upstreams.1", [ACME, exchange(upstream="orders")], notes("acme"), "itself"),
    ("resources.0.upstreams.0", [ACME, orders()], notes("orders", "acme"), "nobody signs in at"),
    ("resources.0.upstreams.1",
     [ACME, ACME | {"name": "other"}, exchange(upstream="other")],
     notes("acme", "orders"), "made of other, which has to be in this list"),
    ("resources.0.upstreams.1", [ACME, orders()],
     notes("acme", {"name": "orders", "connect": "WhenNeeded"}), "say WhenNeeded of acme"),
    ("upstreams.1", [ACME, orders(exchange={"upstream": "acme"}, scopes=None)], notes("acme"),
     "needs an audience"),
    ("upstreams.1", [ACME, orders(preset="github")], notes("acme"), "users sign in"),
    ("upstreams.1", [ACME, orders(clientSecretFile="upstream-secret")], notes("acme"), "no client"),
    ("upstreams.1", [ACME, exchange(tokenEndpoint="https://elsewhere.example.com/token")],
     notes("acme"), "for its own server alone"),
    ("upstreams.1.tokenParameters", [ACME, orders(tokenParameters={"audience": "all"})],
     notes("acme"), "set by"),
    ("upstreams.1.exchange.audience", [ACME, exchange(audience=["a", "a"])], notes("acme"),
     "twice"),
    ("upstreams.1.exchange.audience.0", [ACME, exchange(audience="a b")], notes("acme"), "ASCII"),
    ("upstreams.1.exchange.resource.0", [ACME, exchange(resource="http://a.example")],
     notes("acme"), "https"),
    ("upstreams.1.exchange.requestedTokenType", [ACME, exchange(requestedTokenType="id_token")],
     notes("acme"), "token-type"),
    ("upstreams.1.authorizeParameters", [ACME, orders(authorizeParameters={"a": "b"})],
     notes("acme"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("place", "upstreams", "resources", "words"), FAULTS)
def test_a_combination_that_makes_no_sense_is_a_fault(
    tmp_path: Path, place: str, upstreams: list[Any], resources: list[Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, upstreams, resources))
    told = [
        (fault.path.replace("[", ".").replace("]", ""), fault.problem)
        for fault in refused.value.faults
    ]
    assert any(path.startswith(place) and words in problem for path, problem in told), told


async def test_check_warns_of_what_is_not_kept_apart_after_all(tmp_path: Path) -> None:
    said: list[str] = []
    file = written(tmp_path, [ACME, orders()], notes())
    await tell(load(file), clock.wall, said.append)
    assert any("obtains acme's own tokens beside those of orders" in line for line in said)
    assert not any("oauth/callback/orders" in line for line in said)
    said.clear()
    file = written(tmp_path, [ACME | {"exchangeOnly": True}, orders()], notes())
    await tell(load(file), clock.wall, said.append)
    assert not any("own tokens" in line for line in said)
    file = written(tmp_path, [ACME | {"exchangeOnly": True}], notes("acme"))
    await tell(load(file), clock.wall, said.append)
    assert any("nothing is made of it" in line for line in said)


def targets(random_: random.Random) -> ExchangeTarget:
    def some(names: str) -> tuple[str, ...]:
        return tuple(random_.sample(list(names), random_.randint(0, len(names))))

    return ExchangeTarget(some("abc"), some("uvw"), some("xyz"))


def test_whatever_is_asked_for_nothing_narrowed_holds_more_than_its_target() -> None:
    random_ = random.Random(8693)
    refused = given = 0
    for _ in range(5000):
        target = targets(random_)
        audience = random_.choice([None, *"abcuvwxyz"])
        scopes = tuple(random_.sample(list("axyz"), random_.randint(0, 3)))
        try:
            part = target.narrowed(audience, scopes)
        except (WiderAudience, WiderScope):
            refused += 1
            assert audience not in (None, *target.audiences, *target.resources) or (
                not set(scopes) <= set(target.scopes)
            )
            continue
        given += 1
        assert set(part.audiences) <= set(target.audiences)
        assert set(part.resources) <= set(target.resources)
        assert set(part.scopes) <= set(target.scopes)
        assert audience is None or {*part.audiences, *part.resources} == {audience}
        assert not scopes or set(part.scopes) == set(scopes)
        # To narrow again gives nothing back.
        assert part.narrowed(audience, scopes) == part
    assert refused > 500
    assert given > 500


def test_two_targets_have_one_name_only_if_they_are_the_same() -> None:
    random_ = random.Random(1)
    names: dict[str, tuple[frozenset[str], ...]] = {}
    for _ in range(3000):
        target = targets(random_)
        parts = tuple(frozenset(one) for one in (target.audiences, target.resources, target.scopes))
        assert names.setdefault(target.digest("server", "client"), parts) == parts
    target = ExchangeTarget(("a",), (), ("x", "y"))
    others = [
        target.digest(), target.digest("s", "c"), target.digest("s", "d"), target.digest("sc"),
        ExchangeTarget((), ("a",), ("x", "y")).digest("s", "c"),
        ExchangeTarget(("a",), (), ("x y",)).digest("s", "c"),
    ]  # fmt: skip
    assert all(one != other for one, other in itertools.combinations(others, 2))
