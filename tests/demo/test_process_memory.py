"""The search of a child's memory finds what is there, and nothing else."""

import asyncio
import secrets
import sys
from pathlib import Path

import pytest

from demo.process_memory import holds_any

_CHILD = "import sys; held = sys.stdin.readline(); print('ready', flush=True); sys.stdin.readline()"


async def test_it_finds_what_a_child_holds_and_nothing_else() -> None:
    held, other = secrets.token_hex(32), secrets.token_hex(32)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{held}\n".encode())
        assert await process.stdout.readline() == b"ready\n"
        assert holds_any(process.pid, [other.encode(), held.encode()])
        assert not holds_any(process.pid, [other.encode()])
    finally:
        process.stdin.close()
        await process.wait()


def test_a_secret_across_two_reads_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.process_memory._PIECE", 8)
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "maps").write_text("0-20 r--p 0 0 0\n20-40 ---p 0 0 0\n")
    (folder / "mem").write_bytes(b"......secret...." + b"." * 16 + b"hidden" + b"." * 26)
    assert holds_any(1, [b"secret"], tmp_path)
    assert not holds_any(1, [b"hidden"], tmp_path)  # not readable


def test_memory_that_cannot_be_read_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        holds_any(1, [b"secret"], tmp_path)
