"""The real provider of `tokenward dev`: its members in the configuration, and what is wrong."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from socket import create_server
from typing import Any, Final

import yaml

from authserver.config.provider_presets import PRESETS
from demo.layout import HOST, Layout

_PORTS: Final = range(1, 65_536)
# They have options of their own.
_NOT_SET: Final = ("name", "preset", "clientId", "clientSecretFile")


def usage_faults(parsed: argparse.Namespace) -> Iterator[str]:
    """What can be told from the arguments alone, a line each."""
    preset, client_id = parsed.upstream, parsed.client_id
    if (preset is None) != (client_id is None) or client_id == "":
        yield "--upstream and --client-id go together"
    if preset is None and (parsed.client_secret_file is not None or parsed.set):
        yield "--client-secret-file and --set are for a real provider: they go with --upstream"
    if preset is not None and preset not in PRESETS:
        near = get_close_matches(preset, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(PRESETS))}"
        yield f"no preset {preset!r}; {hint}"
    for text in parsed.set:
        with suppress(ValueError):
            _member(text)
            continue
        yield f"--set {text!r}: must be NAME=VALUE, a member of upstreams[] with YAML as its value"
    for option, port in (("--port", parsed.port), ("--public-port", parsed.public_port)):
        if port is not None and port not in _PORTS:
            yield f"{option} {port}: must be 1 to 65535"
    if parsed.port == parsed.public_port:
        yield "--port and --public-port must differ: your server has one, the authserver the other"


def start_faults(parsed: argparse.Namespace) -> Iterator[str]:
    """What would fail once everything else runs, a line each."""
    [command, *_] = parsed.server_command
    if shutil.which(command) is None:
        yield f"{command}: no such program"
    if parsed.public_port is not None:
        try:
            create_server((HOST, parsed.public_port)).close()
        except OSError as taken:
            yield f"--public-port {parsed.public_port}: {taken.strerror}"


def use(layout: Layout, parsed: argparse.Namespace) -> None:
    """Write a provider of the presets into the configuration, in place of the fake one."""
    configuration: dict[str, Any] = yaml.safe_load(layout.config.read_text("utf-8"))
    upstream = dict(_member(text) for text in parsed.set)
    upstream |= {"name": parsed.upstream, "preset": parsed.upstream, "clientId": parsed.client_id}
    if parsed.client_secret_file is not None:
        upstream["clientSecretFile"] = str(parsed.client_secret_file.resolve())
    configuration["upstreams"] = [upstream]
    for resource in configuration["resources"]:
        resource["upstreams"] = [parsed.upstream]
    layout.config.write_text(yaml.safe_dump(configuration), "utf-8")


def _member(text: str) -> tuple[str, Any]:
    """A member and its value. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or name in _NOT_SET:
        raise ValueError
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError from error
