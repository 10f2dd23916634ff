#!/usr/bin/env bash
# cel-python 0.5: string() gives "True" for true and "1.0" for 1.0, where the CEL of Kubernetes gives "true" and "1".
#
# Annotations and labels are strings, so a policy compares them with string(…) of a field. With cel-python, which
# tests such a policy without a cluster, string(object.spec.hostNetwork) == "true" is false for a Pod with
# hostNetwork, and nothing is raised. A timestamp loses the fraction of its second in the same way. In the other
# direction two things that Kubernetes takes are errors: map with three arguments, and a comparison of an int with a
# double.
#
# Source: celpy/celtypes.py (__str__ of BoolType, DoubleType and TimestampType), celpy/evaluation.py
# (build_macro_eval); cel-go common/types/bool.go and double.go (ConvertToType).
# Seen: the lines below.
#
# Prints what cel-python and cel-go make of the same expressions; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > expressions <<'TXT'
string(pod.hostNetwork)
string(pod.hostNetwork) == "true"
string(pod.share)
string(timestamp("2026-11-29T12:00:00.5Z"))
[1, 2, 3].map(x, x > 1, x * 2)
1 < 1.5
string(pod.port)
TXT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cel-python==0.5.0
cat > show.py <<'PY'
import json
import logging

import celpy
from celpy.adapter import CELJSONEncoder, json_to_cel

logging.disable(logging.CRITICAL)
pod = json_to_cel({"hostNetwork": True, "share": 1.0, "port": 80})
environment = celpy.Environment()
for expression in open("expressions").read().splitlines():
    try:
        value = environment.program(environment.compile(expression)).evaluate({"pod": pod})
        value = json.dumps(value, cls=CELJSONEncoder)
    except (celpy.CELEvalError, ValueError):
        value = "error"
    print(f"{expression}\t{value}")
PY
venv/bin/python show.py > python 2>/dev/null
export GOCACHE="$work/.cache" GOMODCACHE="$work/.modules" GOFLAGS=-modcacherw
cat > main.go <<'GO'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"

	"github.com/google/cel-go/cel"
)

func main() {
	// As Kubernetes makes it: ints and doubles can be compared.
	environment, err := cel.NewEnv(cel.CrossTypeNumericComparisons(true), cel.Variable("pod", cel.DynType))
	if err != nil {
		panic(err)
	}
	pod := map[string]any{"hostNetwork": true, "share": 1.0, "port": 80}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ast, issues := environment.Compile(lines.Text())
		if issues.Err() != nil {
			panic(issues.Err())
		}
		program, err := environment.Program(ast)
		if err != nil {
			panic(err)
		}
		value, _, err := program.Eval(map[string]any{"pod": pod})
		if err != nil {
			panic(err)
		}
		native := value.Value()
		if _, ok := native.(string); !ok && reflect.TypeOf(native).Kind() == reflect.Slice {
			native, err = value.ConvertToNative(reflect.TypeOf([]int{}))
		}
		shown, err := json.Marshal(native)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\t%s\n", lines.Text(), shown)
	}
}
GO
{ go mod init show && go get github.com/google/cel-go@v0.27.0 && go mod tidy; } 2> log || { cat log; exit 1; }
go build -o show .
./show < expressions > go
cut -f2 go | paste python - | tee seen
cat > expected <<'TXT'
string(pod.hostNetwork)	"True"	"true"
string(pod.hostNetwork) == "true"	false	true
string(pod.share)	"1.0"	"1"
string(timestamp("2026-11-29T12:00:00.5Z"))	"2026-11-29T12:00:00Z"	"2026-11-29T12:00:00.5Z"
[1, 2, 3].map(x, x > 1, x * 2)	error	[4,6]
1 < 1.5	error	true
string(pod.port)	"80"	"80"
TXT
diff seen expected || { echo "this has changed"; exit 1; }
