"""Says in words which doors an injected sidecar opens, for `inject --explain`."""

from collections.abc import Iterator, Mapping
from typing import Any

from webhook.annotations import GATEWAY, GATEWAY_APP_PORT, GATEWAY_OPEN_PATHS, GATEWAY_TOKEN
from webhook.gateway_options import variable_of


def doors(container: Mapping[str, Any]) -> Iterator[str]:
    """One line for each door of the sidecar `container`."""
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    url = f"http://127.0.0.1:{variables['TOKENWARD_PORT']}"
    yield f"hand-out: POST {url}/v1/token, where the resource's release allows HandOut"
    yield f"attach: {url}/upstream/<name>/..., where the resource's release allows Attach"
    if variable_of(GATEWAY) in variables:
        yield from _gateway(variables)


def _gateway(variables: Mapping[str, str]) -> Iterator[str]:
    port, _, target = variables[variable_of(GATEWAY)].partition(":")
    yield (
        f"gateway: port {port} of the pod, before the app at 127.0.0.1:{target}; a Service must "
        f"target {port}, with sessionAffinity: ClientIP where there are several replicas"
    )
    if variables.get(variable_of(GATEWAY_TOKEN)) == "upstream":
        yield (
            "gateway: the app gets the upstream's token in place of the JWT, where the resource's "
            "release allows HandOut"
        )
    else:
        yield "gateway: the app gets the client's JWT, for attach or hand-out"
    opened = variables.get(variable_of(GATEWAY_OPEN_PATHS))
    if opened:
        yield f"gateway: without a token, GET and HEAD only: {opened}"
    if variable_of(GATEWAY_APP_PORT) in variables:
        yield (
            f"gateway: a NetworkPolicy has to close port {target} to other pods; "
            "spec.networkPolicy of the MCPServerAuth makes one"
        )
    else:
        yield f"gateway: closed with 503 while the app answers port {target} at the pod's address"
