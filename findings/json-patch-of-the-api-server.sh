#!/usr/bin/env bash
# The JSON Patch of the Kubernetes API server (evanphx json-patch 4.13) and jsonpatch 1.48 disagree on RFC 6902.
#
# A patch that a mutating webhook or a client writes is often tested with Python's jsonpatch and applied by the API
# server with this Go library. Its `test` compares the JSON text of the two values. The server's own text has `&`, `<`
# and `>` as \u0026 and so on, which is how Go writes JSON, and json.dumps does not, so a `test` of a value with one of
# them, such as a URL with a query, always fails. So does 1.0 for 1, which is equal (RFC 6902 section 4.6). The other
# way round, `replace` of a member that is not there, which has to fail (section 4.3), adds it, and `test` for null
# passes on one. jsonpatch answers as the RFC says in all four.
#
# Source: gopkg.in/evanphx/json-patch.v4 patch.go (lazyNode.equal, Patch.replace, Patch.test); that the API server
# uses it: k8s.io/apiserver go.mod, pkg/endpoints/handlers/patch.go (applyJSPatch).
# Seen: the lines below; version 5 of the library differs in two of the four.
#
# Prints what both make of the same patches; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check jsonpatch==1.48
cat > show.py <<'PY'
import json

import jsonpatch

DOCUMENT = {"url": "https://a.example/?a=1&b=2", "replicas": 1}
with open("tries", "w") as file:
    for operation in (
        {"op": "test", "path": "/url", "value": DOCUMENT["url"]},
        {"op": "test", "path": "/replicas", "value": 1.0},
        {"op": "replace", "path": "/labels", "value": {}},
        {"op": "test", "path": "/labels", "value": None},
        {"op": "test", "path": "/replicas", "value": 1},
    ):
        try:
            jsonpatch.apply_patch(DOCUMENT, [operation])
            found = "applied"
        except jsonpatch.JsonPatchException:
            found = "refused"
        print(json.dumps(operation), found, sep="\t")
        print(json.dumps(operation), file=file)
PY
export GOCACHE="$work/.cache" GOMODCACHE="$work/.modules" GOFLAGS=-modcacherw
cat > main.go <<'GO'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	v5 "github.com/evanphx/json-patch/v5"
	v4 "gopkg.in/evanphx/json-patch.v4"
)

func said(err error) string {
	if err != nil {
		return "refused"
	}
	return "applied"
}

func main() {
	// The API server encodes the object in the same way before it patches.
	document, err := json.Marshal(map[string]any{"url": "https://a.example/?a=1&b=2", "replicas": 1})
	if err != nil {
		panic(err)
	}
	tries, err := os.Open("tries")
	if err != nil {
		panic(err)
	}
	for lines := bufio.NewScanner(tries); lines.Scan(); {
		text := []byte("[" + lines.Text() + "]")
		patch4, err := v4.DecodePatch(text)
		if err != nil {
			panic(err)
		}
		patch5, err := v5.DecodePatch(text)
		if err != nil {
			panic(err)
		}
		_, error4 := patch4.Apply(document)
		_, error5 := patch5.Apply(document)
		fmt.Printf("v4 %s, v5 %s\n", said(error4), said(error5))
	}
}
GO
{ go mod init show && go get gopkg.in/evanphx/json-patch.v4@v4.13.0 \
  github.com/evanphx/json-patch/v5@v5.9.11 && go mod tidy; } 2> log || { cat log; exit 1; }
go build -o show .
venv/bin/python show.py > python
./show | paste python - | sed -E 's/\t/: jsonpatch /; s/\t/, /' | tee seen
cat > expected <<'TXT'
{"op": "test", "path": "/url", "value": "https://a.example/?a=1&b=2"}: jsonpatch applied, v4 refused, v5 applied
{"op": "test", "path": "/replicas", "value": 1.0}: jsonpatch applied, v4 refused, v5 refused
{"op": "replace", "path": "/labels", "value": {}}: jsonpatch refused, v4 applied, v5 refused
{"op": "test", "path": "/labels", "value": null}: jsonpatch refused, v4 applied, v5 applied
{"op": "test", "path": "/replicas", "value": 1}: jsonpatch applied, v4 applied, v5 applied
TXT
diff seen expected || { echo "this has changed"; exit 1; }
