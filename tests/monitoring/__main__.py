"""`python -m tests.monitoring`: panels and alerts under a real Prometheus; exit 1 if any fails."""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from chassis import clock
from demo.processes import cancel_on_signals
from tests.monitoring.dashboard import panels
from tests.monitoring.drills import DRILLS, Drill
from tests.monitoring.picture import draw
from tests.monitoring.prometheus import SCRAPE_SECONDS, NoPrometheus, Prometheus
from tests.monitoring.rules import SHORTEST_SECONDS, alerts
from tests.monitoring.scene import World
from tests.monitoring.world import running

_SETTLING_SECONDS: Final = 35.0  # the first poll of the revocation feed is answered by then
_MAX_FIRE_SECONDS: Final = 240.0
_MAX_SILENT_SECONDS: Final = 180.0
_LOOK_SECONDS: Final = 0.5
_RATE_SECONDS: Final = 10.0


@dataclass
class Outcome:
    """One drill: after how many seconds each alert fired, and when all were silent again."""

    drill: Drill
    fired: dict[str, float] = field(default_factory=dict)
    silent: float = 0.0


@dataclass
class Run:
    times: int
    load_seconds: float
    only: str
    violations: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    panels: int = 0
    series: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.monitoring", description=__doc__)
    parser.add_argument("--times", type=int, default=40, help="how much shorter the times are")
    parser.add_argument("--seconds", type=float, default=90.0, help="of load before the drills")
    parser.add_argument("--only", default="", metavar="ALERT", help="only drills of such alerts")
    parser.add_argument("--no-drills", action="store_true", help="panels and picture only")
    parser.add_argument("--picture", type=Path, help="where to draw the dashboard, as SVG")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # parts of the product run in here
    run, begun = Run(options.times, options.seconds, options.only), time.monotonic()
    chosen = [] if options.no_drills else [d for d in DRILLS if _is_chosen(d, options.only)]
    with (
        tempfile.TemporaryDirectory(prefix="tokenward-alerts-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(_all(Path(folder), run, chosen, options.picture))
        except NoPrometheus as missing:
            sys.exit(f"error: {missing}")
    if chosen and not options.only:
        drilled = {name for drill in chosen for name in drill.alerts}
        run.violations += [f"no drill causes {name}" for name in set(alerts()) - drilled]
    text = _report(run, time.monotonic() - begun)
    print(text)
    if options.report is not None and not run.violations:
        options.report.write_text(text)
    sys.exit(1 if run.violations else 0)


def _is_chosen(drill: Drill, only: str) -> bool:
    return any(only.lower() in name.lower() for name in drill.alerts)


async def _all(folder: Path, run: Run, chosen: list[Drill], picture: Path | None) -> None:
    cancel_on_signals()  # else the processes would outlive us
    async with running(folder, run.times) as world:
        await asyncio.sleep(_SETTLING_SECONDS)
        began = clock.wall()
        await _stay_silent(world.prometheus, run)
        await world.prometheus.rules_without_error()
        await _look_at_panels(world.prometheus, run, began)
        if picture is not None:
            picture.write_text(await draw(world.prometheus, began, clock.wall(), _RATE_SECONDS))
        for drill in chosen:
            await _drill(world, run, drill)
            print(_row(run.outcomes[-1]), flush=True)


async def _stay_silent(prometheus: Prometheus, run: Run) -> None:
    """Under load and without trouble, no alert fires."""
    until = time.monotonic() + run.load_seconds
    seen: set[str] = set()
    while time.monotonic() < until:
        seen |= await prometheus.firing()
        await asyncio.sleep(_LOOK_SECONDS)
    run.violations += [f"{name} fires without a cause" for name in sorted(seen)]


async def _look_at_panels(prometheus: Prometheus, run: Run, began: float) -> None:
    for panel in panels():
        run.panels += 1
        for query in panel.queries:
            expression = query.over(_RATE_SECONDS)
            found = await prometheus.range(expression, began, clock.wall())
            run.series += len(found)
            if not any(value for series in found for _, value in series.values):
                said = "only zeros" if found else "nothing"
                run.violations.append(f"panel {panel.title!r} shows {said}: {expression}")


async def _drill(world: World, run: Run, drill: Drill) -> None:
    outcome = Outcome(drill)
    run.outcomes.append(outcome)
    begun, allowed = time.monotonic(), {*drill.alerts, *drill.may}
    async with drill.trouble(world):
        while not set(drill.alerts) <= outcome.fired.keys():
            _note(outcome, await world.prometheus.firing(), begun)
            if time.monotonic() - begun > _MAX_FIRE_SECONDS:
                missing = sorted(set(drill.alerts) - outcome.fired.keys())
                run.violations.append(f"{drill.title}: {', '.join(missing)} did not fire")
                break
            await asyncio.sleep(_LOOK_SECONDS)
    mended = time.monotonic()
    while firing := await world.prometheus.firing():
        _note(outcome, firing, begun)
        if time.monotonic() - mended > _MAX_SILENT_SECONDS:
            run.violations.append(f"{drill.title}: {', '.join(sorted(firing))} went on")
            break
        await asyncio.sleep(_LOOK_SECONDS)
    outcome.silent = time.monotonic() - mended
    others = sorted(outcome.fired.keys() - allowed)
    run.violations += [f"{drill.title}: {name} fired as well" for name in others]


def _note(outcome: Outcome, firing: Iterable[str], begun: float) -> None:
    for name in firing:
        outcome.fired.setdefault(name, time.monotonic() - begun)


def _row(outcome: Outcome) -> str:
    fired = ", ".join(f"`{name}` {seconds:.0f} s" for name, seconds in outcome.fired.items())
    return f"| {outcome.drill.title} | {fired or 'nothing'} | {outcome.silent:.0f} s |"


def _report(run: Run, seconds: float) -> str:
    rows = "\n".join(map(_row, run.outcomes))
    listed = "".join(f"- {text}\n" for text in run.violations)
    return f"""# Alert drills

Written by `make alerts` on {time.strftime("%Y-%m-%d", time.gmtime())}. Debian's Prometheus scrapes
webhook, authserver, controller and three sidecars every {SCRAPE_SECONDS} s. Meanwhile users call
all three doors, sign in and are revoked. Ranges and `for` of the rules are {run.times} times
shorter here, but not under {SHORTEST_SECONDS} s; `promtool` tests them as they are. The controller
runs against an API server in memory. The run took {seconds:.0f} s.

Under {run.load_seconds:.0f} s of load without trouble, none of the {len(alerts())} alerts fired.
Every query of the {run.panels} panels of the [dashboard](../how-to/watch-an-installation.md)
returned data other than zero: {run.series} time series.

| trouble | fired, after | silent after it was mended |
|---|---|---|
{rows}

A violation is an alert that does not fire in its drill, one that fires without a cause or does not
stop, and a panel without data. Violations: {len(run.violations)}.
{listed}"""


if __name__ == "__main__":
    main()
