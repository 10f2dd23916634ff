#!/usr/bin/env bash
# cel-python 0.5: the first Environment of a process decides for all later ones which runner works.
#
# The parser is kept on the class and made once, with the tree class that the first environment's runner needs.
# An environment with CompiledRunner that is made after one with InterpretedRunner (the default) compiles, and
# fails with AttributeError when a program is made of it, whatever the expression. In the other order both work.
# The class's docstring says how tests reset it; nothing says that it must be done between two runners.
#
# Source: celpy/celparser.py (CELParser.CEL_PARSER), celpy/__init__.py (Environment.__init__).
# Seen: interpreted first: 'Tree' object has no attribute 'checked_exception'; compiled first: both give 3.
#
# Prints what the two orders give; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cel-python==0.5.0
cat > "$work/show.py" <<'PY'
import logging
import sys

import celpy

logging.disable(logging.CRITICAL)
for name in sys.argv[1:]:
    environment = celpy.Environment(runner_class=getattr(celpy, name))
    try:
        value = environment.program(environment.compile("1 + 2")).evaluate({})
    except AttributeError as error:
        value = f"AttributeError {error}"
    print(f"{name}: {value}")
PY
"$work/venv/bin/python" "$work/show.py" InterpretedRunner CompiledRunner | tee "$work/one"
echo
"$work/venv/bin/python" "$work/show.py" CompiledRunner InterpretedRunner | tee "$work/other"
grep -q "^InterpretedRunner: 3$" "$work/one"
grep -q "^CompiledRunner: AttributeError .*checked_exception" "$work/one"
test "$(grep -c ': 3$' "$work/other")" = 2
