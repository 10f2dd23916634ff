"""The reference of both kinds, made of their schemas: `python -m tests.manifests.reference`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).parents[2] / "manifests/crds"
PAGE = Path(__file__).parents[2] / "docs/reference/custom-resources.md"

_HEAD = """# Custom resources

This page is made of the schemas in `manifests/crds` by `python -m tests.manifests.reference`, and a
test keeps it so. `kubectl explain mcpserverauth.spec` prints the same. What a condition's reason
means, and what to do about it, is on [its own page](conditions.md).
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name in ("mcpauthservers", "mcpserverauths"):
        spec = yaml.safe_load((CRDS / f"{name}.yaml").read_text("utf-8"))["spec"]
        (version,) = spec["versions"]
        parts.append("\n".join(_kind(spec, version)))
    return "\n".join(parts)


def _kind(spec: dict[str, Any], version: dict[str, Any]) -> Iterator[str]:
    names, schema = spec["names"], version["schema"]["openAPIV3Schema"]
    yield f"## {names['kind']}"
    yield ""
    api, short = f"{spec['group']}/{version['name']}", names["shortNames"][0]
    yield f"`{api}`, short name `{short}`, in a namespace. {schema['description']}"
    for rule in schema.get("x-kubernetes-validations", ()):
        yield f"Its name {rule['message']}."
    for part in ("spec", "status"):
        yield from ("", f"### {names['kind']} {part}", "")
        yield from ("| member | type | meaning | rules |", "|---|---|---|---|")
        yield from _rows(schema["properties"][part], part)
    yield ""


def _rows(schema: dict[str, Any], where: str) -> Iterator[str]:
    needed = set(schema.get("required", ()))
    for name, member in schema.get("properties", {}).items():
        at = f"{where}.{name}"
        rules = [one["message"] for one in member.get("x-kubernetes-validations", ())]
        if name in needed:
            rules.insert(0, "required")
        rules += _bounds(member)
        yield _row(at, _type(member), member.get("description", ""), rules)
        yield from _rows(member, at)
        items = member.get("items", {})
        if items.get("properties"):
            for rule in items.get("x-kubernetes-validations", ()):
                yield _row(f"{at}[]", "object", "Each entry.", [rule["message"]])
            yield from _rows(items, f"{at}[]")


def _row(member: str, kind: str, meaning: str, rules: list[str]) -> str:
    cells = (f"`{member}`", kind, meaning, "; ".join(rules))
    return "| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("additionalProperties"):
        return "map of strings"
    return str(schema.get("format") or schema["type"])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    default = schema.get("default")
    if isinstance(default, str | int):
        yield f"default `{default}`"
    for name, text in (("minItems", "at least {} entries"), ("maxItems", "at most {} entries"),
                       ("minimum", "at least {}"), ("maximum", "at most {}")):  # fmt: skip
        if name in schema:
            yield text.format(schema[name])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
