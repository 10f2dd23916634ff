"""The keys under `tokenward.dev/` that a pod may carry: the public annotation contract.

No key names an image, a Secret, a volume, a CA, a URL of ours or an environment variable.
`options.py` parses the values.
"""

from typing import Final

PREFIX: Final = "tokenward.dev/"
INJECT: Final = PREFIX + "inject"
SERVER: Final = PREFIX + "server"
RESOURCE: Final = PREFIX + "resource"
PROFILE: Final = PREFIX + "profile"
CONTAINERS: Final = PREFIX + "containers"
SKIP_CONTAINERS: Final = PREFIX + "skip-containers"
PORT: Final = PREFIX + "port"
OPS_PORT: Final = PREFIX + "ops-port"
LOG_LEVEL: Final = PREFIX + "log-level"
INIT_ORDER: Final = PREFIX + "init-order"
GATEWAY: Final = PREFIX + "gateway"
GATEWAY_TOKEN: Final = PREFIX + "gateway-token"
GATEWAY_HEADER: Final = PREFIX + "gateway-header"
GATEWAY_UPSTREAM: Final = PREFIX + "gateway-upstream"
GATEWAY_OPEN_PATHS: Final = PREFIX + "gateway-open-paths"
GATEWAY_ORIGINS: Final = PREFIX + "gateway-origins"
GATEWAY_APP_PORT: Final = PREFIX + "gateway-app-port"
GATEWAY_KEYS: Final = (
    GATEWAY, GATEWAY_TOKEN, GATEWAY_HEADER, GATEWAY_UPSTREAM, GATEWAY_OPEN_PATHS, GATEWAY_ORIGINS,
    GATEWAY_APP_PORT,
)  # fmt: skip
AMOUNTS: Final = {
    PREFIX + amount: amount
    for amount in ("cpu-request", "cpu-limit", "memory-request", "memory-limit")
}

STATUS: Final = PREFIX + "status"
AUTHSERVER_CA: Final = PREFIX + "authserver-ca"
INJECTED_LABEL: Final = PREFIX + "injected"

PUBLIC: Final = (
    INJECT, SERVER, RESOURCE, PROFILE, CONTAINERS, SKIP_CONTAINERS, PORT, OPS_PORT, LOG_LEVEL,
    INIT_ORDER, *GATEWAY_KEYS, *AMOUNTS,
)  # fmt: skip
WRITTEN_BY_US: Final = (STATUS, AUTHSERVER_CA)
KNOWN: Final = frozenset({*PUBLIC, *WRITTEN_BY_US})

DEFAULT_PORT: Final = 15500
DEFAULT_OPS_PORT: Final = 15501
