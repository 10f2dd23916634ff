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
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=80)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.rounds} rounds", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tokenward-chaos-") as folder:
        run = Run(Path(folder), options.seed, options.rounds, options.sessions)
        asyncio.run(_until_over(run))
    run.check_refreshes()
    report = _report(run, options.seed, options.sessions, time.monotonic() - begun)
    print(report, *run.tally.violations, *run.tally.logs, sep="\n")
    if options.report is not None:
        options.report.write_text(report)
    sys.exit(1 if run.tally.violations else 0)


async def _until_over(run: Run) -> None:
    cancel_on_signals()  # else the processes would outlive us
    await run.go()


def _report(run: Run, seed: int, sessions: int, seconds: float) -> str:
    tally, violations = run.tally, Counter(run.tally.violations)
    return f"""# Chaos report

Written by `make chaos`. Two authserver processes on one PostgreSQL, two sidecars, {sessions} sessions
that each ask at both replicas and a sidecar at once, an upstream that rotates refresh tokens and
ends the grant when a spent one comes back; its access tokens live {LIFETIME} s. Seed {seed}, {seconds:.0f} s.

## What must hold
| statement | counted | violations |
|---|---|---|
| a refresh token that was taken is presented again only where its answer was lost | {run.refreshes} refreshes | {_of(violations, "refresh token was", "spent")} |
| one refresh per expiry | {run.refreshes} refreshes | {_of(violations, "two refreshes")} |
| no connection is lost without a cause listed below | {sum(tally.losses.values())} lost | {_of(violations, "lost its")} |
| no token goes to a workload that does not own it, or to another session | {sum(n for k, n in tally.answers.items() if k.startswith("stranger"))} foreign calls | {_of(violations, "a token went", "somebody else", "never gave")} |
| every answer is a token that is valid, 503, or (for a lost connection) a call for a new sign-in | {sum(tally.answers.values())} answers | {_of(violations, "answered", "expired", "at last")} |

## Faults
{_table("fault", tally.faults)}

## Connections lost
{_table("cause", tally.losses)}

A process that dies between the durable claim and the durable result leaves a refresh token of which
nobody knows whether the upstream has taken it; an upstream that breaks off does too. Such a token is
presented again. If the upstream had acted, its reuse detection ends the grant, and the connection needs
a new sign-in. Nothing else costs one. A process is killed at a step of one refresh and may be in the
middle of others, so one kill may cost several.

## Answers
{_table("door: status", tally.answers)}
"""


def _of(violations: Counter[str], *parts: str) -> int:
    return sum(n for text, n in violations.items() if any(part in text for part in parts))


def _table(head: str, counts: Counter[str]) -> str:
    rows = "\n".join(f"| {name} | {number} |" for name, number in sorted(counts.items()))
    return f"| {head} | count |\n|---|---|\n{rows or '| none | 0 |'}"


if __name__ == "__main__":
    main()
