"""What `python -m authserver` imports before it serves: each module costs its start."""

import subprocess
import sys
from pathlib import Path

WITH_THE_FIRST_OF_ITS_KIND = {
    "authlib": "a registration or a sign-in",
    "authserver.admin": "an operator's command",
    "authserver.config.notes": "--check",
    "jinja2": "a page",
    "sqlite3": "storage.url",
    "asyncpg": "storage.url",
}


def test_a_start_does_not_import_what_only_rare_requests_need() -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import authserver.__main__, sys; print(*sys.modules, sep='\\n')",
        ],
        env={"PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert not WITH_THE_FIRST_OF_ITS_KIND.keys() & set(ended.stdout.split())
