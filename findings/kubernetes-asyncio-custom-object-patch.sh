#!/usr/bin/env bash
# kubernetes_asyncio 36: the same dict is a strategic merge patch for a ConfigMap and a JSON Patch for a
# custom resource.
#
# The client picks the Content-Type from the operation's list. For built-in kinds a dict goes out as
# application/strategic-merge-patch+json. Custom resources have no strategic merge, and there a dict goes
# out as application/json-patch+json, whose body must be a list (RFC 6902 section 3). The API server answers
# 400, or a double that does not look at the Content-Type accepts it, and the fault shows in a cluster first.
# Saying _content_type="application/merge-patch+json" helps.
#
# Source: kubernetes_asyncio/client/api_client.py, select_header_content_type, and the lists in
# client/api/core_v1_api.py and client/api/custom_objects_api.py.
# Seen: the three lines below.
#
# Prints the Content-Type of three patches with a dict; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes_asyncio==36.1.0
cat > "$work/show.py" <<'PY'
import asyncio
from importlib.metadata import version

from aiohttp import web
from kubernetes_asyncio import client

CUSTOM = ("example.com", "v1", "demo", "things", "one")
sent = []


async def api_server(request):
    sent.append((request.content_type, await request.json()))
    return web.json_response({"metadata": {"name": "one"}})


async def main():
    application = web.Application()
    application.router.add_patch("/{path:.*}", api_server)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    where = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with client.ApiClient(where) as api:
        custom = client.CustomObjectsApi(api)
        patch = {"metadata": {"labels": {"a": "b"}}}
        await client.CoreV1Api(api).patch_namespaced_config_map("one", "demo", patch)
        await custom.patch_namespaced_custom_object(*CUSTOM, patch)
        merge = "application/merge-patch+json"
        await custom.patch_namespaced_custom_object(*CUSTOM, patch, _content_type=merge)
    await runner.cleanup()


asyncio.run(main())
kinds = ("ConfigMap", "custom resource", "custom resource, type said")
print("kubernetes_asyncio", version("kubernetes_asyncio"))
for kind, (content_type, body) in zip(kinds, sent, strict=True):
    print(f"{kind:28}{content_type}  {body}")
assert [content_type for content_type, _ in sent] == [
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/merge-patch+json",
], "this has changed"
assert all(isinstance(body, dict) for _, body in sent), "this has changed"
PY
"$work/venv/bin/python" "$work/show.py"
