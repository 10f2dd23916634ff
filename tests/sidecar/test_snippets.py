"""The snippets of the how-to page work as they stand there, each in its own runtime."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes.authserver import ACCESS_TOKEN, answering, refuse
from tests.sidecar.harness import JWT, Harness

_PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/get-a-token.md"

_PYTHON_CALL = """
import sys
try:
    print(upstream_token(sys.stdin.read()))
except SignInAgain as again:
    print("sign in again:", again)
"""
_NODE_CALL = """
try {
  console.log(await upstreamToken((await import("node:fs")).readFileSync(0, "utf8")));
} catch (error) {
  console.log("sign in again:", error.message);
}
"""
_GO_CALL = """
func main() {
	jwt, _ := io.ReadAll(os.Stdin)
	token, err := upstreamToken(string(jwt))
	var again SignInAgain
	if errors.As(err, &again) {
		token = "sign in again: " + again.Challenge
	}
	fmt.Println(token)
}
"""


def _snippet(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def _without_types(typescript: str) -> str:
    """Enough for our own snippet: a runtime of ten years strips types, this machine's may not."""
    return re.sub(r": (?:string|Buffer\[\]|Buffer|Promise<string>)(?=[ ,)])", "", typescript)


def _command(language: str, folder: Path) -> list[str]:
    """Write a program around the snippet that reads the JWT from standard input and prints."""
    match language:
        case "python":
            program = folder / "call.py"
            program.write_text(_snippet("python") + _PYTHON_CALL)
            return [sys.executable, str(program)]
        case "typescript":
            program = folder / "call.mjs"
            program.write_text(_without_types(_snippet("typescript")) + _NODE_CALL)
            return ["node", str(program)]
        case "go":
            imports = 'import (\n\t"errors"\n\t"io"'
            program = folder / "call.go"
            program.write_text(_snippet("go").replace("import (", imports, 1) + _GO_CALL)
            return ["go", "run", str(program)]
        case _:
            script = "JWT=$(cat)\n" + _snippet("sh")
            return ["sh", "-c", script]


_RUNTIMES = {"python": sys.executable, "typescript": "node", "go": "go", "sh": "curl"}


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


@pytest.mark.parametrize("language", _RUNTIMES)
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
    assert "reauthentication_required" in said or "sign in again: Bearer" in said
