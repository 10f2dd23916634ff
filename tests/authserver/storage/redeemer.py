"""Redeems one code 25 times at once; arguments: URL, password file or empty, hash of the code.

Says `ready`, waits for a line, and prints how many of them got the session.
"""

import asyncio
import sys
from pathlib import Path

from tests.support.storage_fixtures import NOW, Place, Store, new_refresh_token, together


async def main(url: str, password_file: str, code_hash: str) -> None:
    database = await Place(url, Path(password_file) if password_file else None).open()
    store = Store(database)
    print("ready", flush=True)  # noqa: T201 - to its parent
    await asyncio.to_thread(sys.stdin.readline)
    found = await together(
        store.codes.redeem(
            bytes.fromhex(code_hash),
            now=NOW,
            session_expires_at=NOW + 3600,
            refresh_token=new_refresh_token(),
        )
        for _ in range(25)
    )
    print(sum(session is not None for session in found), flush=True)  # noqa: T201
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
