"""An informer's store is what the API server has, whatever happens to its streams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from controller.api.kinds import CONFIG_MAP, NAMESPACE, POD
from controller.api.objects import Key, Object
from controller.cluster import ApiError
from controller.watch import Informer
from tests.controller.samples import stamp
from tests.fakes.kubernetes_api import FakeApi


def config_map(name: str, value: str, namespace: str = "ns") -> Object:
    meta = {"name": name, "namespace": namespace, "managedFields": [{"manager": "x"}]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": value}}


@dataclass
class Site:
    api: FakeApi = field(default_factory=lambda: FakeApi(stamp))
    changes: list[tuple[str, bool, bool]] = field(default_factory=list)
    restarts: int = 0
    pauses: list[float] = field(default_factory=list)

    def values(self) -> dict[str, str]:
        return {key.name: one["data"]["value"] for key, one in self.informer.store.items()}

    def __post_init__(self) -> None:
        self.informer = Informer(
            self.api,
            CONFIG_MAP,
            lambda key, old, new: self.changes.append((key.name, old is not None, new is not None)),
            namespace="ns",
            on_restart=self._restarted,
            pause=self._pause,
            random=lambda: 0.5,
        )

    def _restarted(self) -> None:
        self.restarts += 1

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def following(site: Site) -> AsyncIterator[None]:
    task = asyncio.create_task(site.informer.run())
    try:
        await site.informer.synced.wait()
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until it holds; a bound on turns, not on time."""
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came about")


async def test_objects_come_change_and_go() -> None:
    site = Site()
    site.api.put(config_map("a", "1"))
    site.api.put(config_map("foreign", "1", namespace="other"))
    async with following(site):
        assert site.values() == {"a": "1"}
        site.api.put(config_map("b", "1"))
        site.api.put(config_map("a", "2"))
        await until(lambda: site.values() == {"a": "2", "b": "1"})
        site.api.remove(CONFIG_MAP, Key("ns", "a"))
        await until(lambda: site.values() == {"b": "1"})
    assert site.changes == [
        ("a", False, True), ("b", False, True), ("a", True, True), ("a", True, False),
    ]  # fmt: skip


async def test_managed_fields_are_not_kept_and_the_type_is() -> None:
    site = Site()
    site.api.put(config_map("a", "1"))
    async with following(site):
        found = site.informer.store[Key("ns", "a")]
        assert "managedFields" not in found["metadata"]
        assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")


async def test_a_stream_that_ends_goes_on_where_it_was() -> None:
    site = Site()
    async with following(site):
        for number in range(5):
            site.api.cut_streams()
            site.api.put(config_map("a", str(number)))
            await until(lambda number=number: site.values() == {"a": str(number)})  # type: ignore[misc]
    lists = [verb for verb, _, _ in site.api.calls if verb == "list"]
    assert len(lists) == 1


async def test_a_version_that_expired_is_listed_anew_as_often_as_it_happens() -> None:
    site = Site()
    site.api.put(config_map("gone", "1"))
    async with following(site):
        for number in range(3):
            site.api.put(config_map("a", str(number)))
            site.api.forget_history()
            site.api.remove(CONFIG_MAP, Key("ns", "gone"))
            await until(lambda number=number: site.values() == {"a": str(number)})  # type: ignore[misc]


async def test_an_api_server_that_is_away_costs_a_growing_wait_and_no_object() -> None:
    site = Site()
    site.api.put(config_map("a", "1"))

    def away(verb: str, kind: object, key: Key) -> None:
        raise ApiError(0, "Unreachable", "")

    async with following(site):
        site.api.refuse = away
        site.api.cut_streams()
        await until(lambda: len(site.pauses) > 8)
        assert site.values() == {"a": "1"}
        waits = site.pauses[1:]
        assert waits == sorted(waits)
        assert max(waits) <= 30
        site.api.refuse = lambda *_: None
        site.api.put(config_map("a", "2"))
        await until(lambda: site.values() == {"a": "2"})
    assert site.restarts == len(site.pauses)


async def test_an_object_that_a_list_no_longer_has_is_gone() -> None:
    site = Site()
    site.api.put(config_map("a", "1"))
    async with following(site):
        site.api.objects.pop((CONFIG_MAP, Key("ns", "a")))  # its DELETED event was missed
        site.api.put(config_map("b", "1"))
        site.api.forget_history()
        await until(lambda: site.values() == {"b": "1"})
    assert ("a", True, False) in site.changes


def test_paths_are_those_of_the_api() -> None:
    assert POD.path("ns", "a") == "/api/v1/namespaces/ns/pods/a"
    assert POD.path() == "/api/v1/pods"
    assert NAMESPACE.path("", "ns") == "/api/v1/namespaces/ns"
