#!/usr/bin/env bash
# cel-python 0.5: with CompiledRunner `has(x)` works alone, and in no `!`, `&&` or `? :`, which the default runner takes.
#
# The compiled `has` returns a bool of Python. The operators ask for celpy's own BoolType, and answer "no such
# overload" for anything else; `all`, `exists`, `in` and comparisons return that type. `has(x) && …` is the usual
# form of a Kubernetes admission policy, so a policy that passes with InterpretedRunner errs with the faster one.
#
# Source: celpy/evaluation.py (Transpiler, the macro has), celpy/celtypes.py (logical_and, logical_condition).
# Seen: has(pod.labels) is True with both; has(pod.labels) && has(pod.ports) is CELEvalError with CompiledRunner.
#
# Prints what both runners make of the same expressions; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cel-python==0.5.0
cat > "$work/show.py" <<'PY'
import logging
import sys

import celpy
from celpy.adapter import json_to_cel

logging.disable(logging.CRITICAL)
pod = json_to_cel({"labels": {"app": "notes"}, "ports": [1, 2]})
runner = getattr(celpy, sys.argv[1])
environment = celpy.Environment(runner_class=runner)
for expression in (
    "has(pod.labels)",
    "has(pod.labels) && has(pod.ports)",
    "!has(pod.spec)",
    "has(pod.spec) ? 1 : 2",
    "pod.ports.all(p, p > 0) && 'app' in pod.labels",
):
    try:
        value = environment.program(environment.compile(expression)).evaluate({"pod": pod})
    except celpy.CELEvalError:
        value = "CELEvalError"
    print(f"{expression}: {value}")
PY
for runner in InterpretedRunner CompiledRunner; do
  # A process each: the first environment of a process decides for all (see the finding about it).
  "$work/venv/bin/python" "$work/show.py" "$runner" 2>/dev/null | tee "$work/$runner"
  echo "($runner)"
done
! grep -q CELEvalError "$work/InterpretedRunner"
test "$(grep -c CELEvalError "$work/CompiledRunner")" = 3
grep -q '^has(pod.labels): True$' "$work/CompiledRunner"
