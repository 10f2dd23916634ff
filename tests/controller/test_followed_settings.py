"""The controller follows its own settings."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.process import ConfigurationError
from controller.api.kinds import CONFIG_MAP
from controller.api.objects import Key
from controller.followed_settings import FollowedSettings
from controller.settings import Settings
from tests.controller.running import SETTINGS, SIDECAR, Site
from tests.controller.samples import SYSTEM

OTHER = SIDECAR.replace("0" * 64, "1" * 64)


def write(file: Path, image: str = SIDECAR, **changes: Any) -> None:
    webhook = {"authServer": "main", "configuration": {"image": image}}
    file.write_text(yaml.safe_dump({**SETTINGS, "webhook": webhook, **changes}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "controller.yaml"
    write(made)
    return made


async def test_a_changed_image_reaches_the_webhook(file: Path) -> None:
    site, followed = Site(), FollowedSettings(file)
    site.put_auth_server()

    def rendered() -> str:
        key = (CONFIG_MAP, Key(SYSTEM, "tokenward-webhook"))
        found = site.api.objects.get(key)
        return str(found["data"]["webhook.yaml"]) if found is not None else ""

    async def control(settings: Settings) -> None:
        await site.controller(settings=settings).run()

    task = asyncio.create_task(followed.run(control, interval=0.001))
    try:
        await site.until(lambda: f"image: {SIDECAR}" in rendered())
        write(file, OTHER)
        await site.until(lambda: f"image: {OTHER}" in rendered())
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_former_controller_has_ended_before_the_next_one_begins(file: Path) -> None:
    followed, running, most = FollowedSettings(file), 0, 0
    seen: list[int] = []

    async def control(settings: Settings) -> None:
        nonlocal running, most
        seen.append(settings.workers)
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # as the Lease is given up
            running -= 1

    task = asyncio.create_task(followed.run(control, interval=0.001))
    for workers in (2, 3):
        write(file, workers=workers)
        while seen[-1:] != [workers]:
            await asyncio.sleep(0.001)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (most, running) == (1, 0)


async def test_a_controller_that_fails_is_not_begun_again(file: Path) -> None:
    async def control(settings: Settings) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await FollowedSettings(file).run(control)


def test_a_bad_file_keeps_the_settings_and_is_said_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = FollowedSettings(file)
    for content in ("authserverImage: x\nworkers: many\n", ": no yaml"):
        file.write_text(content)
        assert not followed.poll()
        assert not followed.poll()
    assert [one.msg for one in caplog.records] == ["configuration_kept", "configuration_kept"]
    assert followed.current.webhook is not None
    assert followed.current.webhook.image == SIDECAR
    write(file, OTHER)
    assert followed.poll()
    assert followed.current.webhook.image == OTHER
    assert not followed.poll()


def test_a_bad_file_at_the_start_is_no_start(file: Path) -> None:
    file.write_text("workers: many\n")
    with pytest.raises(ConfigurationError):
        FollowedSettings(file)
