"""The how-to's calls without a package work as they stand there, each in its own runtime."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.fakes.authserver import ACCESS_TOKEN, answering, refuse
from tests.sidecar.harness import JWT, Harness

_PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/get-a-token.md"

_GO_CALL = """
func main() {
	jwt, _ := io.ReadAll(os.Stdin)
	token, err := upstreamToken(string(jwt))
	var refused *Refused
	if errors.As(err, &refused) {
		fmt.Println(refused.Status, refused.Error_, refused.Challenge, refused)
	}
	fmt.Println(token)
}
"""


def _snippet(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def _command(language: str, folder: Path) -> list[str]:
    """Write a program around the snippet that reads the JWT from standard input and prints."""
    match language:
        case "go":
            imports = 'import (\n\t"errors"\n\t"io"'
            program = folder / "call.go"
            program.write_text(_snippet("go").replace("import (", imports, 1) + _GO_CALL)
            return ["go", "run", str(program)]
        case _:
            script = "JWT=$(cat)\n" + _snippet("sh")
            return ["sh", "-c", script]


_RUNTIMES = {"go": "go", "sh": "curl"}


async def _run(command: list[str], folder: Path, port: int) -> str:
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - where the runtimes are
        "HOME": str(folder),
        "TOKENWARD_URL": f"http://127.0.0.1:{port}",
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=-1, stdout=-1, stderr=-1
    )
    printed, complaints = await process.communicate(JWT.encode())
    return printed.decode() + complaints.decode()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "language",
    # Go compiles its standard library first.
    [pytest.param("go", marks=pytest.mark.interop), "sh"],
)
async def test_a_snippet_gets_the_token_and_tells_when_to_sign_in_again(
    r: Harness, tmp_path: Path, language: str
) -> None:
    if shutil.which(_RUNTIMES[language]) is None:
        pytest.skip(f"no {_RUNTIMES[language]} on this machine")
    command = _command(language, tmp_path)
    assert ACCESS_TOKEN in await _run(command, tmp_path, r.port)

    r.authserver.always(answering(lambda: refuse(400, "invalid_grant")))
    r.clock.advance(61)
    said = await _run(command, tmp_path, r.port)
    assert "reauthentication_required" in said
    assert "request_id" in said or "(reauthentication_required, request " in said
    assert language == "sh" or '401 reauthentication_required Bearer error="invalid_token"' in said
