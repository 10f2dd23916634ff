"""`tokenward check FILE`: every fault of a configuration file, of whichever process it is."""

import argparse
from pathlib import Path
from typing import Any

from chassis.process import ConfigProblem, ConfigurationError
from chassis.yaml_config import read_mapping
from tokenward.output import Output

EXIT_FAILED = 1


def check(parsed: argparse.Namespace) -> int:
    """0 without faults, 1 with some."""
    faults, notes = _look_at(parsed.file)
    members = {
        "file": str(parsed.file),
        "faults": [_members(fault) for fault in faults],
        "notes": [_members(note) for note in notes],
    }
    lines = [f"note: {note}" for note in notes]
    lines += [str(fault) for fault in faults] or [f"{parsed.file}: no faults"]
    Output(parsed.output).report(members, lines)
    return EXIT_FAILED if faults else 0


def _look_at(file: Path) -> tuple[list[ConfigProblem], list[ConfigProblem]]:
    """Faults and notes."""
    try:
        if "signingKeys" in read_mapping(file):
            return _of_authserver(file)
        from webhook.settings import load

        load(file)
    except ConfigurationError as bad:
        return list(bad.faults), []
    return [], []


def _of_authserver(file: Path) -> tuple[list[ConfigProblem], list[ConfigProblem]]:
    from authserver import listener_tls
    from authserver.config.loader import load
    from authserver.config.notes import notes_of

    settings = load(file)
    faults = list(listener_tls.faults(settings))
    return faults, [] if faults else list(notes_of(settings))


def _members(problem: ConfigProblem) -> dict[str, Any]:
    return {"path": problem.path, "problem": problem.problem}
