"""`python -m tests.chaos`: one bounded, seeded run; exit 1 if anything did not hold."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from demo.processes import cancel_on_signals
from tests.chaos.run import LIFETIME, Run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--sessions", type=int, default=80)
    parser.add_argument("--rounds", type=int, help="refreshes; 25 for each session if not given")
    parser.add_argument("--seconds", type=float, default=300.0, help="of faults, at most")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    rounds = options.rounds or 25 * options.sessions
    print(f"seed {options.seed}, {rounds} rounds", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tokenward-chaos-") as folder:
        run = Run(Path(folder), options.seed, rounds, options.sessions, options.seconds)
        try:
            asyncio.run(_until_over(run))
        finally:
            logs = _keep_logs(Path(folder), options.seed)
            report = _report(run, options.seed, options.sessions, time.monotonic() - begun)
            print(report, *run.tally.violations, f"the logs are {logs}", sep="\n", flush=True)
    if options.report is not None:
        before = options.report.read_text() if options.report.exists() else ""
        row = _run_row(run, options.seed, options.sessions)
        options.report.write_text(report + _runs(before, row))
    sys.exit(1 if run.tally.violations else 0)


def _keep_logs(folder: Path, seed: int) -> str:
    """Beside the run's folder, which is about to go."""
    kept = []
    for log in folder.glob("*/log"):
        kept.append(folder.with_name(f"tokenward-chaos-{seed}-{log.parent.name}.log"))
        kept[-1].write_bytes(log.read_bytes())
    return " ".join(map(str, kept))


async def _until_over(run: Run) -> None:
    cancel_on_signals()  # else the processes would outlive us
    await run.go()


def _report(run: Run, seed: int, sessions: int, seconds: float) -> str:
    tally, violations = run.tally, Counter(run.tally.violations)
    return f"""# Chaos report

Written by `make chaos` on {time.strftime("%Y-%m-%d", time.gmtime())}. Two authserver processes on one
PostgreSQL, two sidecars, {sessions} sessions that each ask at both replicas and a sidecar at once, an
upstream that rotates refresh tokens and ends the grant when a spent one comes back; its access tokens
live {LIFETIME} s. Seed {seed}, {seconds:.0f} s, ended by {tally.ended_by}.

## What must hold
| statement | counted | violations |
|---|---|---|
| a refresh token is not presented any more once its successor is known | {run.refreshes} refreshes | {_of(violations, "refresh token was", "spent")} |
| one refresh per expiry | {run.refreshes} refreshes | {_of(violations, "two refreshes")} |
| no connection is lost unless the upstream had acted and its answer reached nobody | {sum(tally.losses.values())} lost | {_of(violations, "lost its")} |
| no token goes to a workload that does not own it, or to another session | {sum(n for k, n in tally.answers.items() if k.startswith("stranger"))} foreign calls | {_of(violations, "a token went", "somebody else", "never gave")} |
| every answer is a token that is valid, 503, or (for a lost connection) a call for a new sign-in | {sum(tally.answers.values())} answers | {_of(violations, "answered", "expired")} |
| after the faults every session is served again | {sessions} sessions | {_of(violations, "at last", "too few")} |

## Faults
{_table("fault", tally.faults)}

## Refreshes of unknown outcome
{_table("cause", tally.unknown)}

## Connections lost
{_table("cause", tally.losses)}

A process that dies between the durable claim and the durable result leaves a refresh token of which
nobody knows whether the upstream has taken it. The same goes for an upstream that breaks off and for
connections that are reset in a closed accept queue. Such a token is presented again. If the upstream
had acted, its reuse detection ends the grant, and the connection needs a new sign-in. Nothing else
costs one. A process is killed at a step of one refresh and may be in the middle of others, so one kill
may cost several.

## Answers
{_table("door: status", tally.answers)}
"""


_RUNS = "## Runs"
_RUNS_HEAD = """| date | seed | sessions | refreshes | of unknown outcome | lost: answer | lost: process killed | violations |
|---|---|---|---|---|---|---|---|"""
_KEPT_RUNS = 20


def _runs(before: str, row: str) -> str:
    """The last section: this run's row, below those that the page had before."""
    rows = [line for line in before.partition(_RUNS)[2].splitlines() if line.startswith("| 2")]
    return "\n".join([f"\n{_RUNS}", _RUNS_HEAD, *rows[-_KEPT_RUNS:], row, ""])


def _run_row(run: Run, seed: int, sessions: int) -> str:
    tally = run.tally
    killed = sum(n for cause, n in tally.losses.items() if cause.startswith("the process"))
    cells = (
        time.strftime("%Y-%m-%d", time.gmtime()), seed, sessions, run.refreshes,
        sum(tally.unknown.values()), tally.losses["the upstream acted and its answer was lost"],
        killed, len(tally.violations),
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _of(violations: Counter[str], *parts: str) -> int:
    return sum(n for text, n in violations.items() if any(part in text for part in parts))


def _table(head: str, counts: Counter[str]) -> str:
    rows = "\n".join(f"| {name} | {number} |" for name, number in sorted(counts.items()))
    return f"| {head} | count |\n|---|---|\n{rows or '| none | 0 |'}"


if __name__ == "__main__":
    main()
