"""`python -m tests.drills`: drill an outage of providers; exit 1 if anything did not hold."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from demo.processes import cancel_on_signals
from tests.drills.outage import LIFETIME, OutageDrill, Provider


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--users", type=int, default=40, help="of each provider")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long the outage lasts")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tokenward-drill-") as folder:
        drill = OutageDrill(Path(folder), options.seed, options.users, options.seconds)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(_until_over(drill))
            finally:
                kept = _keep_logs(Path(folder))
    violations = [f"{p.trouble.mode}: {text}" for p in drill.providers for text in p.violations]
    report = _report(drill, options, time.monotonic() - begun, violations)
    print(report, f"the logs are {kept}", sep="\n")
    if options.report is not None:
        options.report.write_text(report)
    sys.exit(1 if violations else 0)


async def _until_over(drill: OutageDrill) -> None:
    cancel_on_signals()  # else the processes would outlive us
    await drill.run()


def _keep_logs(folder: Path) -> str:
    """Beside the drill's folder, which is about to go."""
    kept = []
    for log in folder.glob("r*/log"):
        kept.append(folder.with_name(f"{folder.name}-{log.parent.name}.log"))
        kept[-1].write_bytes(log.read_bytes())
    return " ".join(map(str, kept))


def _report(
    drill: OutageDrill, options: argparse.Namespace, seconds: float, violations: list[str]
) -> str:
    providers = drill.providers
    causes = sum((p.losses for p in providers), Counter[str]())
    listed = "".join(f"- {text}\n" for text in violations)
    rows = "\n".join(_row(provider) for provider in providers)
    return f"""# Outage report

Written by `make drills` on {time.strftime("%Y-%m-%d", time.gmtime())}. Two authservers on one
PostgreSQL, five providers with {options.users} users each, access tokens of {LIFETIME} s. Every
provider rotates refresh tokens and ends the grant when a spent one comes back. All of them fail for
{options.seconds:.0f} s. {drill.kills} times a replica is killed with SIGKILL and started again.
Seed {options.seed}, {seconds:.0f} s.

## What became of the sign-ins
| provider | calls | acted upon | sign-ins lost | at once | in trouble | beside a slow one | 200 | 503 | no answer | all served after |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

"Calls" are refreshes that reached the provider during the outage. "At once" is the largest number
that one process had under way, and "in trouble" the same once the process knows: from its start on if it
was started during the outage, else from four seconds after its first failed call on. "Beside a slow one"
counts the calls of a process whose earlier call had been under way for more than four seconds. A call is
under way until it is answered, or until its caller closes the connection or is killed. The machine was
late by up to {drill.lateness.worst:.1f} s; twice what it was late in the last 15 s is added to each limit.

## Sign-ins lost, by cause
{_table(causes)}

## What must hold
Each of these is a violation: a sign-in lost without one of the causes above, a token that is still
valid and is refused, a token that the provider does not accept, a user who is not served after the
outage, a call beside a slow one, and more than one call at a time once a provider is in trouble.
Violations: {len(violations)}.
{listed}"""


def _row(provider: Provider) -> str:
    trouble, answers = provider.trouble, provider.answers
    seen = trouble.under_way
    after = provider.recovered_after
    lost = sum(provider.losses.values())
    return (
        f"| {trouble.mode} | {trouble.calls} | {trouble.acted} | {lost} of"
        f" {len(provider.users)} | {seen.most_at_once} | {seen.most_in_trouble} | {seen.beside_a_slow_one} |"
        f" {answers['200']} | {answers['503']} | {answers['no connection']} |"
        f" {'never' if after is None else f'{after:.0f} s'} |"
    )


def _table(causes: Counter[str]) -> str:
    rows = "\n".join(f"| {name} | {number} |" for name, number in sorted(causes.items()))
    return f"| cause | count |\n|---|---|\n{rows or '| none | 0 |'}"


if __name__ == "__main__":
    main()
