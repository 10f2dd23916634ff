"""A Prometheus of this run, and what is asked of it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

SCRAPE_SECONDS: Final = 2
_READY_SECONDS: Final = 30.0


class NoPrometheus(Exception):
    """The programs are not installed."""


@dataclass(frozen=True)
class Target:
    """One process to scrape, with the labels that the Prometheus operator would give it."""

    port: int
    job: str
    container: str
    pod: str
    namespace: str = "tokenward-system"

    def section(self) -> dict[str, Any]:
        labels = {"container": self.container, "pod": self.pod, "namespace": self.namespace}
        return {"targets": [f"127.0.0.1:{self.port}"], "labels": labels}


@dataclass(frozen=True)
class Sample:
    """A time series over a range: its labels, and pairs of Unix seconds and value."""

    labels: Mapping[str, str]
    values: tuple[tuple[float, float], ...]


class Prometheus:
    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http, self._url = http, f"http://127.0.0.1:{port}"

    async def firing(self) -> set[str]:
        """The names of alerts that fire now."""
        found = await self._get("alerts")
        return {
            alert["labels"]["alertname"] for alert in found["alerts"] if alert["state"] == "firing"
        }

    async def range(self, query: str, start: float, end: float, step: float = 1) -> list[Sample]:
        found = await self._get("query_range", query=query, start=start, end=end, step=step)
        return [
            Sample(series["metric"], tuple((float(t), float(v)) for t, v in series["values"]))
            for series in found["result"]
        ]

    async def rules_without_error(self) -> None:
        """Raises AssertionError where a rule cannot be evaluated."""
        for group in (await self._get("rules"))["groups"]:
            for rule in group["rules"]:
                assert rule["health"] == "ok", (rule["name"], rule.get("lastError"))

    async def ready(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(_READY_SECONDS):
            while process.returncode is None:
                try:
                    async with self._http.get(f"{self._url}/-/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        raise NoPrometheus(f"it ended with code {process.returncode}; see prometheus.log")

    async def _get(self, what: str, **parameters: object) -> Any:
        texts = {name: str(value) for name, value in parameters.items()}
        async with self._http.get(f"{self._url}/api/v1/{what}", params=texts) as answer:
            body = await answer.json()
            assert body["status"] == "success", body
            return body["data"]


@asynccontextmanager
async def scraping(
    folder: Path, port: int, targets: list[Target], rules: Mapping[str, Any]
) -> AsyncIterator[Prometheus]:
    """Run Debian's `prometheus` on loopback until the end of the block. Raises NoPrometheus."""
    program = shutil.which("prometheus")
    if program is None:
        raise NoPrometheus("prometheus is not installed; on Debian: apt-get install prometheus")
    (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_configuration(targets)))
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        async with aiohttp.ClientSession() as http:
            prometheus = Prometheus(http, port)
            await prometheus.ready(process)
            yield prometheus
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _configuration(targets: list[Target]) -> dict[str, Any]:
    jobs: dict[str, list[dict[str, Any]]] = {}
    for target in targets:
        jobs.setdefault(target.job, []).append(target.section())
    every = f"{SCRAPE_SECONDS}s"
    return {
        "global": {
            "scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every,
        },
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": sections} for job, sections in jobs.items()
        ],
    }  # fmt: skip
