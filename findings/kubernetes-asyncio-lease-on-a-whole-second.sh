#!/usr/bin/env bash
# kubernetes_asyncio 36: the API server cannot read a Lease whose renewTime falls on a whole second.
#
# acquireTime and renewTime of a Lease are of the type MicroTime. Kubernetes reads it with exactly six digits after
# the point, unlike its other times. The client writes datetime.isoformat(), which leaves the fraction out
# when it is zero. With the time as the clock gives it one renewal in a million cannot be decoded; with
# replace(microsecond=0) none can. The same holds for eventTime of an Event. metadata.creationTimestamp, of the
# type Time, is read in both forms. A datetime.isoformat(timespec="microseconds") given as the value is sent as it is.
#
# Source: kubernetes_asyncio/client/api_client.py (sanitize_for_serialization), k8s.io/apimachinery
# pkg/apis/meta/v1/micro_time.go (RFC3339Micro, MicroTime.UnmarshalJSON).
# Seen: the lines below.
#
# Prints what the client writes and what the types of Kubernetes make of it; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check kubernetes_asyncio==36.1.0
cat > show.py <<'PY'
import asyncio
import json
from datetime import UTC, datetime

from kubernetes_asyncio import client

SECOND = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)


async def main():
    async with client.ApiClient() as api:
        for time in (SECOND.replace(microsecond=1), SECOND, SECOND.isoformat(timespec="microseconds")):
            lease = client.V1Lease(spec=client.V1LeaseSpec(renew_time=time))
            print(json.dumps(api.sanitize_for_serialization(lease)["spec"]["renewTime"]))


asyncio.run(main())
PY
export GOCACHE="$work/.cache" GOMODCACHE="$work/.modules" GOFLAGS=-modcacherw
cat > main.go <<'GO'
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func read(text []byte, into json.Unmarshaler) string {
	if err := into.UnmarshalJSON(text); err != nil {
		return "refused"
	}
	return "read"
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		text := lines.Bytes()
		fmt.Printf("%s: MicroTime %s, Time %s\n", text, read(text, &metav1.MicroTime{}), read(text, &metav1.Time{}))
	}
}
GO
{ go mod init show && go get k8s.io/apimachinery@v0.37.2 && go mod tidy; } 2> log || { cat log; exit 1; }
go build -o show .
venv/bin/python show.py | ./show | tee seen
cat > expected <<'TXT'
"2026-11-29T12:00:00.000001+00:00": MicroTime read, Time read
"2026-11-29T12:00:00+00:00": MicroTime refused, Time read
"2026-11-29T12:00:00.000000+00:00": MicroTime read, Time read
TXT
diff seen expected || { echo "this has changed"; exit 1; }
