"""What a process makes once for all its deployments: of a deployment's start, most was this.

The migrations, and the checks of a listener's files, have tests of their own: the databases of
tests/authserver/storage are all migrated, and what follows or judges files builds its own context.
"""

import functools
import ssl
import tempfile
from pathlib import Path

from authserver.config.listeners import InternalListener
from authserver.listener_tls import internal_material
from authserver.storage.engines import sqlite
from authserver.storage.engines.migrate import migrations
from demo.pki import CertificateAuthority, Issued

# By the migrations themselves, so that no file is of others than those in force.
_databases: dict[tuple[tuple[int, str], ...], tuple[int, bytes]] = {}
_contexts: dict[tuple[bytes, ...], ssl.SSLContext] = {}


async def put_migrated(file: Path) -> None:
    """An empty, migrated database at `file`, unless something is there or its folder is missing."""
    if file.exists() or not file.parent.is_dir():
        return
    known = tuple(migrations())
    if known not in _databases:
        _databases[known] = await _migrated()
    mode, content = _databases[known]
    file.write_bytes(content)
    file.chmod(mode)


async def _migrated() -> tuple[int, bytes]:
    """The mode and the content of a file that was opened and closed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenward.db"
        await (await sqlite.open_file(file)).close()
        return file.stat().st_mode, file.read_bytes()


@functools.cache
def authorities() -> tuple[CertificateAuthority, CertificateAuthority, Issued]:
    """Of servers and of workloads, and the authserver's certificate."""
    servers, workloads = (CertificateAuthority.create(n) for n in ("servers", "workloads"))
    return servers, workloads, servers.issue_server()


def internal_tls(listener: InternalListener) -> ssl.SSLContext:
    """The internal listener's context, one for files of the same content. Not to be changed."""
    material = internal_material(listener)
    content = tuple(file.read_bytes() for file in material.files)
    if content not in _contexts:
        _contexts[content], _ = material.build()
    return _contexts[content]
