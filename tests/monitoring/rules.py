"""The alert rules of the manifests, as they are and with their times made short."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
COMPONENT: Final = ROOT / "manifests/components/prometheus"
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTEST_SECONDS: Final = 15
_RANGE: Final = re.compile(r"\[(\d+)([smhd])\]")
_DURATION: Final = re.compile(r"(\d+)([smhd])")


def rule_file() -> dict[str, Any]:
    """The `spec` of the PrometheusRule: what Prometheus itself reads."""
    found: dict[str, Any] = yaml.safe_load((COMPONENT / "rules.yaml").read_text())["spec"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    return {rule["alert"]: rule for group in rule_file()["groups"] for rule in group["rules"]}


def seconds(duration: str) -> int:
    """A Prometheus duration of one unit, such as `15m`."""
    found = _DURATION.fullmatch(duration)
    assert found is not None, duration
    return int(found[1]) * SECONDS[found[2]]


def shortened(times: int) -> dict[str, Any]:
    """The same rules with every range and every `for` so many times shorter, if not too short."""
    spec = rule_file()
    for group in spec["groups"]:
        for rule in group["rules"]:
            rule["expr"] = in_short(rule["expr"], times)
            if "for" in rule:
                rule["for"] = _short(seconds(rule["for"]), times)
    return spec


def in_short(expression: str, times: int) -> str:
    return _RANGE.sub(lambda m: f"[{_short(seconds(m[1] + m[2]), times)}]", expression)


def _short(duration: int, times: int) -> str:
    """Some scrapes at least: on a busy machine several in a row come late, and mean nothing."""
    return f"{max(duration * 1000 // times, SHORTEST_SECONDS * 1000)}ms"
