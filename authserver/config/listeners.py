"""What an operator says of the three listeners."""

from typing import Self

from pydantic import Field, model_validator

from authserver.config.value_types import LOOPBACK, Network, ReadableFile
from chassis.config_types import Model, Port


class Tls(Model):
    cert_file: ReadableFile
    key_file: ReadableFile


class PublicListener(Model):
    host: str
    port: Port
    tls: Tls | None = None
    behind_tls_proxy: bool = Field(False, alias="behindTLSProxy")
    trusted_proxies: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _no_plain_http_in_the_open(self) -> Self:
        if self.tls is None and not self.behind_tls_proxy and self.host not in LOOPBACK:
            raise ValueError(
                "plain http is for loopback: set tls, or behindTLSProxy where a proxy ends TLS"
            )
        return self


class InternalListener(Model):
    host: str
    port: Port
    cert_file: ReadableFile
    key_file: ReadableFile
    client_ca_file: ReadableFile = Field(alias="clientCAFile")


class OpsListener(Model):
    host: str
    port: Port


class Listeners(Model):
    public: PublicListener
    internal: InternalListener
    ops: OpsListener
