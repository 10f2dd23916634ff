#!/usr/bin/env bash
# prometheus_client 0.26: its parser for the text format gives counters another name than they were exposed under.
#
# In the text format 0.0.4 a counter's sample may have any name; only OpenMetrics asks for `_total`. The parser
# appends `_total` to the samples of every counter without it. So a check that looks for the name that the
# program exposed finds nothing, and a proxy that parses and exposes again renames the time series. The type
# decides: the same line as a gauge keeps its name.
#
# Source: prometheus_client/parser.py, text_fd_to_metric_families (build_metric).
# Seen: http_requests becomes http_requests_total, also after a round trip.
#
# Prints the names before and after; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check prometheus_client==0.26.0
cat > "$work/show.py" <<'PY'
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


class Again:
    def __init__(self, families):
        self.families = families

    def collect(self):
        return self.families


def names(text):
    families = list(text_string_to_metric_families(text))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Again(families))
    exposed = generate_latest(registry).decode().splitlines()
    return (
        [sample.name for family in families for sample in family.samples],
        [line.split(" ")[0] for line in exposed if not line.startswith("#")],
    )


print("prometheus_client", version("prometheus_client"))
found = {}
for kind in ("counter", "gauge"):
    found[kind] = names(f"# TYPE http_requests {kind}\nhttp_requests 3\n")
    print(f"http_requests as a {kind}: parsed {found[kind][0]}, exposed again {found[kind][1]}")
assert found == {
    "counter": (["http_requests_total"], ["http_requests_total"]),
    "gauge": (["http_requests"], ["http_requests"]),
}, "this has changed"
PY
"$work/venv/bin/python" "$work/show.py"
