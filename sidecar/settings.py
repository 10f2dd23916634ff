"""The sidecar's settings: environment variables, read once, every fault reported together."""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

from chassis.http1.client import Host
from chassis.logs import LEVELS
from chassis.process import ConfigProblem, ConfigurationError
from chassis.spiffe_id import InvalidSpiffeId, parse_workload

if TYPE_CHECKING:
    from sidecar.gateway.settings import GatewaySettings

CACHE_TTL_CEILING: Final = 60

_URL: Final = re.compile(r"https?://[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)  # RFC 6749 section 3.3

T = TypeVar("T")


class Settings(NamedTuple):
    """Everything an operator decides about one sidecar."""

    authserver_url: str
    authserver_ca: Path
    credential: Path
    spiffe_id: str
    resource: str | None
    issuer: str | None
    scopes: tuple[str, ...]
    port: int
    ops_host: str
    ops_port: int
    log_level: str
    cache_ttl_max: int
    api_proxy: Host | None = None
    gateway: "GatewaySettings | None" = None


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the TOKENWARD_ variables; an empty one counts as absent, one we do not know is ignored.

    Kubernetes adds variables named after services, so a stray TOKENWARD_ one is no mistake.
    Raises ConfigurationError with every fault.
    """
    variables = _Variables(environment)
    gateway = None
    if variables.has("GATEWAY"):
        from sidecar.gateway.settings import read_gateway  # few pods have one

        gateway = read_gateway(variables)
    settings = Settings(
        authserver_url=variables.required("AUTHSERVER_URL", _authserver_url),
        authserver_ca=variables.required("AUTHSERVER_CA_FILE", Path),
        credential=variables.required("CREDENTIAL_DIR", Path),
        spiffe_id=variables.required("SPIFFE_ID", _spiffe_id),
        resource=variables.optional("RESOURCE", _url, None),
        issuer=variables.optional("ISSUER", _issuer, None),
        scopes=variables.optional("SCOPES", _scopes, ()),
        port=variables.optional("PORT", _whole_number(0, 65_535), 15500),
        ops_host=variables.optional("OPS_HOST", _address, "::"),
        ops_port=variables.optional("OPS_PORT", _whole_number(0, 65_535), 15501),
        log_level=variables.optional("LOG_LEVEL", _log_level, "info"),
        cache_ttl_max=variables.optional(
            "CACHE_TTL_MAX", _whole_number(0, CACHE_TTL_CEILING), CACHE_TTL_CEILING
        ),
        api_proxy=variables.optional("API_PROXY", _proxy, None),
        gateway=gateway,
    )
    if settings.resource is not None and not variables.has("ISSUER"):
        variables.fault("ISSUER", "is needed to tell MCP clients where to sign in to RESOURCE")
    if settings.port == settings.ops_port != 0:
        variables.fault("OPS_PORT", "must differ from TOKENWARD_PORT")
    if gateway is not None:
        _check_gateway(gateway, settings, variables)
    variables.complain()
    return settings


def _check_gateway(gateway: "GatewaySettings", settings: Settings, variables: "_Variables") -> None:
    if settings.resource is None:
        variables.fault("RESOURCE", "is needed by TOKENWARD_GATEWAY for its challenge")
    ours = {settings.port: "TOKENWARD_PORT", settings.ops_port: "TOKENWARD_OPS_PORT"}
    if gateway.port in ours and gateway.port != 0:
        variables.fault("GATEWAY", f"must differ from {ours[gateway.port]}")
    if gateway.target in ours:
        variables.fault("GATEWAY", f"must not lead to {ours[gateway.target]}")


class _Variables:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._faults: list[ConfigProblem] = []

    @property
    def in_kubernetes(self) -> bool:
        return bool(self._environment.get("KUBERNETES_SERVICE_HOST"))

    def has(self, name: str) -> bool:
        return bool(self._environment.get(f"TOKENWARD_{name}"))

    def required(self, name: str, parse: Callable[[str], T]) -> T:
        if not self.has(name):
            self.fault(name, "is required")
        missing: Any = None  # stands in until `complain` raises
        return self.optional(name, parse, cast(T, missing))

    def optional(self, name: str, parse: Callable[[str], T], default: T) -> T:
        if not self.has(name):
            return default
        try:
            return parse(self._environment[f"TOKENWARD_{name}"])
        except ValueError as fault:
            self.fault(name, str(fault))
            return default

    def fault(self, name: str, problem: str) -> None:
        self._faults.append(ConfigProblem(f"TOKENWARD_{name}", problem))

    def complain(self) -> None:
        if self._faults:
            raise ConfigurationError(sorted(self._faults))


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ValueError(f"must be a whole number from {least} to {most}")
        if not least <= int(text) <= most:
            raise ValueError(f"must be from {least} to {most}")
        return int(text)

    return parse


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("must be an IP address, such as 127.0.0.1 or ::") from None


def _url(text: str) -> str:
    """An absolute http or https URL whose spelling can stand in a quoted string as it is."""
    try:
        parts = urlsplit(text) if _URL.fullmatch(text) else None
        usable = parts is not None and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an absolute http or https URL")
    if urlsplit(text).username is not None or "#" in text:
        raise ValueError("must have neither user information nor a fragment")
    return text


def _authserver_url(text: str) -> str:
    parts = urlsplit(_url(text))
    if parts.scheme != "https":
        raise ValueError("must begin with https://")
    if parts.path not in ("", "/") or parts.query:
        raise ValueError("must end after the host and port")
    return text


def _proxy(text: str) -> Host:
    """A proxy that opens tunnels; a password in the environment would be a secret in sight."""
    parts = urlsplit(_url(text))
    if parts.scheme != "http" or parts.path not in ("", "/") or parts.query:
        raise ValueError("must be http://HOST:PORT and end there")
    return Host(str(parts.hostname), parts.port or 80)


def _issuer(text: str) -> str:
    if _url(text).endswith("/") or urlsplit(text).query:
        raise ValueError("must be the issuer exactly, without a trailing slash or a query")
    return text


def _spiffe_id(text: str) -> str:
    trust_domain = text.removeprefix("spiffe://").partition("/")[0]
    try:
        parse_workload(text, trust_domain=trust_domain)
    except InvalidSpiffeId as problem:
        raise ValueError(f"must be the SPIFFE ID of a workload: {problem}") from None
    return text


def _scopes(text: str) -> tuple[str, ...]:
    scopes = tuple(text.split())
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise ValueError("must be scopes separated by spaces")
    return scopes


def _log_level(text: str) -> str:
    if text not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}")
    return text
