"""`tokenward doctor`: every problem that is found, with its remedy; silent about what is sound.

Whether a provider knows our redirect URI cannot be asked: most answer only after a sign-in, and
each in its own way. So it is printed, for an operator to compare.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from msgspec.structs import asdict

from authserver.admin.doctor.file_checks import file_findings
from authserver.admin.doctor.finding import Finding
from authserver.admin.doctor.network_checks import network_findings
from authserver.admin.doctor.settings_checks import settings_findings
from authserver.admin.doctor.storage_checks import storage_findings
from authserver.admin.opened import CommandFailed, opened
from authserver.admin.redirect_uris import ToRegister, to_register
from authserver.config.loader import load
from authserver.config.settings import Settings
from authserver.upstream.http_client import UpstreamHttp
from chassis import clock
from chassis.process import ConfigProblem, ConfigurationError
from tokenward.cluster import checks
from tokenward.cluster.kubectl import Kubectl, KubectlFailed
from tokenward.cluster.seen import read
from tokenward.output import Output

EXIT_FAILED: Final = 1


def doctor(parsed: argparse.Namespace) -> int:
    """0 where nothing is wrong, 1 where something is."""
    return asyncio.run(_doctor(parsed))


async def _doctor(parsed: argparse.Namespace) -> int:
    if parsed.cluster:
        return _tell(parsed, await asyncio.to_thread(_in_the_cluster, parsed), [])
    try:
        settings = load(parsed.config)
    except ConfigurationError as bad:
        return _tell(parsed, [_fault(problem, parsed.config) for problem in bad.faults], [])
    found = [finding async for finding in _findings(parsed, settings)]
    return _tell(parsed, found, list(to_register(settings)))


def _tell(parsed: argparse.Namespace, found: list[Finding], uris: list[ToRegister]) -> int:
    """Print all of it; the exit code."""
    members = {
        "problems": [asdict(finding) for finding in found],
        "redirect_uris": [asdict(one) for one in uris],
        "count": len(found),
    }
    lines = [
        line
        for finding in found
        for line in (f"{finding.place}: {finding.problem}", f"  remedy: {finding.remedy}")
    ] or ["no problems found"]
    if uris:
        lines.append("compare with each provider's console:")
    for one in uris:
        lines.append(f"  {one.upstream}: client {one.client_id}, redirect URI {one.redirect_uri}")
    Output(parsed.output).report(members, lines)
    return EXIT_FAILED if found else 0


def _fault(fault: ConfigProblem, config: Path) -> Finding:
    remedy = "correct that member; docs/reference/configuration.md describes each"
    if not config.exists():
        remedy = "run this where the authserver runs, or name its configuration with --config"
    return Finding("configuration", fault.path, fault.problem, remedy)


async def _findings(parsed: argparse.Namespace, settings: Settings) -> AsyncIterator[Finding]:
    for finding in settings_findings(settings, clock.wall()):
        yield finding
    for finding in file_findings(settings, clock.wall()):
        yield finding
    async for finding in _in_storage(parsed):
        yield finding
    if not parsed.offline:
        async for finding in _on_the_network(settings):
            yield finding


async def _in_storage(parsed: argparse.Namespace) -> AsyncIterator[Finding]:
    try:
        async with opened(parsed.config, clock.wall) as installation:
            async for finding in storage_findings(installation):
                yield finding
    except CommandFailed as failed:
        remedy = (
            "look whether the database runs and is reached from here, whether an authserver of this"
            " version has migrated it, and at `storage` and `encryptionKeys`"
        )
        problem = "; ".join(failed.lines).removeprefix("storage: ")
        yield Finding("storage", "storage", problem, remedy)


async def _on_the_network(settings: Settings) -> AsyncIterator[Finding]:
    async with UpstreamHttp() as http:
        async for finding in network_findings(settings, http, clock.wall):
            yield finding


def _in_the_cluster(parsed: argparse.Namespace) -> list[Finding]:
    """Raises CommandFailed where kubectl reaches no cluster."""
    try:
        seen = read(Kubectl(parsed.kubectl), parsed.namespace)
    except KubectlFailed as failed:
        raise CommandFailed(str(failed)) from None
    return list(checks.findings(seen, clock.wall()))
