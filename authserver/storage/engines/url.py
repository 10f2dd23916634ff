"""Where the database is: `storage.url`, read and judged without touching anything."""

from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from authserver.values import Value

_TLS_MODES: Final = ("verify-full", "verify-ca", "disable")
_OPTIONS: Final = ("sslmode", "sslrootcert", "prepared_statements")
_FORMS: Final = "sqlite:///absolute/path or postgresql://user@host:port/database"


class SqliteLocation(Value, frozen=True):
    file: Path


class PostgresqlLocation(Value, frozen=True):
    """`ca_file` is set where the server proves who it is; `check_name` where by its name too.

    Without `prepared_statements` a pooler may share connections between transactions.
    """

    host: str
    port: int
    user: str
    database: str
    ca_file: Path | None = None
    check_name: bool = True
    prepared_statements: bool = True

    def __str__(self) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"


Location = SqliteLocation | PostgresqlLocation


def read_location(url: str) -> Location:
    """Raises ValueError with what is wrong; never with the URL, which may hold a password."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
            raise ValueError("must be sqlite:///absolute/path and nothing more")
        return SqliteLocation(Path(parts.path))
    if parts.scheme != "postgresql":
        raise ValueError(f"must be {_FORMS}")
    if parts.password is not None:
        raise ValueError("must hold no password: put it into a file and name it in passwordFile")
    database = parts.path.removeprefix("/")
    if not (parts.hostname and parts.username and database) or "/" in database or parts.fragment:
        raise ValueError(f"must be {_FORMS}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if set(options) - set(_OPTIONS):
        raise ValueError(f"may have the options {', '.join(_OPTIONS)} only")
    prepared = options.get("prepared_statements", "true")
    if prepared not in ("true", "false"):
        raise ValueError("must have true or false as prepared_statements")
    ca_file, check_name = _tls(parts.hostname, options)
    return PostgresqlLocation(
        parts.hostname,
        parts.port or 5432,
        parts.username,
        database,
        ca_file,
        check_name,
        prepared == "true",
    )


def _tls(host: str, options: dict[str, str]) -> tuple[Path | None, bool]:
    """The CA file, if any, and whether the name is checked.

    A server that cannot prove who it is could hand out sessions of its own making. So outside
    loopback the mode must be written out, and the modes that only look like TLS are not offered.
    """
    mode = options.get("sslmode", "disable" if _is_loopback(host) else None)
    if mode not in _TLS_MODES:
        raise ValueError(f"must say sslmode, one of {', '.join(_TLS_MODES)}")
    if mode == "disable":
        return None, False
    if not options.get("sslrootcert", "").startswith("/"):
        raise ValueError(f"needs sslrootcert=/absolute/path with sslmode={mode}")
    return Path(options["sslrootcert"]), mode == "verify-full"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
