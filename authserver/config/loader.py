"""Reads the configuration file and reports every fault of it at once, each with its place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from authserver.config import exchanged_upstreams, provider_presets
from authserver.config.exchange_rules import problem_of_parent, problems_of_resource
from authserver.config.settings import Settings
from authserver.oauth.resources import InvalidResource, collision_key
from chassis.process import ConfigProblem, ConfigurationError
from chassis.yaml_config import problems_of, read_mapping

# Where pydantic adds the chosen type to the path of a fault.
_UNIONS: Final = (("upstreams",),)
_MESSAGES: Final = {
    "union_tag_not_found": "type must be oidc or oauth2, or come from a preset or from exchange",
}


def load(file: Path) -> Settings:
    """Read and check the configuration in `file`. Raises ConfigurationError with every fault."""
    raw = _expanded(read_mapping(file))
    faults = list(_cross_checks(raw))
    try:
        settings = Settings.model_validate(raw, context={"folder": file.resolve().parent})
    except ValidationError as invalid:
        faults.extend(problems_of(invalid, unions=_UNIONS, messages=_MESSAGES))
    if faults:
        raise ConfigurationError(sorted(set(faults)))
    return settings


def _expanded(raw: dict[str, Any]) -> dict[str, Any]:
    """The file's content with the presets of its upstreams filled in."""
    upstreams = raw.get("upstreams")
    if not isinstance(upstreams, list):
        return raw
    filled = [_filled(one) if isinstance(one, dict) else one for one in upstreams]
    return raw | {"upstreams": filled}


def _filled(upstream: dict[str, Any]) -> dict[str, Any]:
    """An upstream with its preset, or, where its tokens are exchanged, with its type."""
    if "exchange" in upstream:
        return exchanged_upstreams.typed(upstream)
    return provider_presets.expanded(upstream)


def _cross_checks(raw: dict[str, Any]) -> Iterator[ConfigProblem]:
    """Faults between sections, looked for even where a section has faults of its own."""
    upstreams = _section(raw, "upstreams")
    named = {
        name: upstream for _, upstream in upstreams if isinstance(name := upstream.get("name"), str)
    }
    for index, upstream in upstreams:
        preset = upstream.get("preset")
        if isinstance(preset, str) and preset not in provider_presets.PRESETS:
            known = ", ".join(provider_presets.PRESETS)
            yield ConfigProblem(f"upstreams[{index}].preset", f"is none of those we know: {known}")
    parents = {name: exchanged_upstreams.parent_of(one) for name, one in named.items()}
    for index, upstream in upstreams:
        parent = exchanged_upstreams.parent_of(upstream)
        if parent is not None and (problem := problem_of_parent(parent, parents)):
            yield ConfigProblem(f"upstreams[{index}].exchange.upstream", problem)
    yield from _twice("upstreams", upstreams, "name")
    yield from _twice("encryptionKeys", _section(raw, "encryptionKeys"), "id")
    clients = raw.get("clients")
    if isinstance(clients, dict):
        yield from _twice("clients.static", _section(clients, "static"), "clientId")
    seen: dict[str, int] = {}
    for index, resource in _section(raw, "resources"):
        yield from _resource_faults(index, resource, named, seen)
        for position, problem in problems_of_resource(_listed(resource), parents):
            yield ConfigProblem(f"resources[{index}].upstreams[{position}]", problem)


def _resource_faults(
    index: int, resource: dict[str, Any], named: dict[str, Any], seen: dict[str, int]
) -> Iterator[ConfigProblem]:
    try:
        spelling = collision_key(str(resource.get("resource")))
        if seen.setdefault(spelling, index) != index:
            yield ConfigProblem(
                f"resources[{index}].resource",
                f"the same resource as resources[{seen[spelling]}]; it has exactly one owner",
            )
    except InvalidResource:
        pass  # reported where the member itself is checked
    wanted = resource.get("upstreams")
    for position, written in enumerate(wanted if isinstance(wanted, list) else []):
        place = f"resources[{index}].upstreams[{position}]"
        name = written.get("name") if isinstance(written, dict) else written
        if not isinstance(name, str):
            continue  # reported where the member itself is checked
        if name not in named:
            known = ", ".join(sorted(named)) or "none"
            yield ConfigProblem(place, f"no upstream has this name (there are: {known})")
        elif position == 0 and "exchange" not in named[name] and not _names_its_user(named[name]):
            yield ConfigProblem(
                place,
                "the first upstream names the user: it needs subjectField, and userinfoEndpoint or "
                "subjectFrom",
            )


def _listed(resource: dict[str, Any]) -> list[tuple[str, str]]:
    """The upstreams of a resource as names with their `connect`, whatever else is wrong."""
    written = resource.get("upstreams")
    entries = written if isinstance(written, list) else []
    named = [one if isinstance(one, dict) else {"name": one} for one in entries]
    return [(str(one.get("name")), str(one.get("connect", ""))) for one in named]


def _names_its_user(upstream: dict[str, Any]) -> bool:
    if upstream.get("type") != "oauth2":
        return True
    source = upstream.get("userinfoEndpoint") or upstream.get("subjectFrom") in ("token", "idToken")
    return bool(source and upstream.get("subjectField"))


def _section(raw: dict[str, Any], name: str) -> list[tuple[int, dict[str, Any]]]:
    section = raw.get(name)
    entries = enumerate(section if isinstance(section, list) else [])
    return [(index, entry) for index, entry in entries if isinstance(entry, dict)]


def _twice(
    section: str, entries: list[tuple[int, dict[str, Any]]], member: str
) -> Iterator[ConfigProblem]:
    seen: set[object] = set()
    for index, entry in entries:
        value = entry.get(member)
        if isinstance(value, str) and value in seen:
            yield ConfigProblem(f"{section}[{index}].{member}", "stands here twice")
        seen.add(value if isinstance(value, str) else None)
