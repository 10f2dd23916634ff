"""Since when the configuration has not named an upstream that somebody asked for."""

from collections.abc import Collection

from authserver.storage.contract import Database


class MissingUpstreams:
    """All replicas and restarts share one memory: a slip does not begin anew with a process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, upstream: str, now: int) -> int:
        """When the upstream was first missed, in Unix seconds; `now` if this is the first time."""
        await self._database.write(
            "INSERT INTO missing_upstreams (upstream, missing_since) VALUES (?, ?)"
            " ON CONFLICT (upstream) DO NOTHING",
            upstream,
            now,
        )
        row = await self._database.fetch_one(
            "SELECT missing_since FROM missing_upstreams WHERE upstream = ?", upstream
        )
        return int(row["missing_since"]) if row else now

    async def are_configured(self, upstreams: Collection[str]) -> None:
        """Forget every one of these: the configuration names them now."""
        for row in await self._database.fetch_all("SELECT upstream FROM missing_upstreams"):
            if row["upstream"] in upstreams:
                await self._database.write(
                    "DELETE FROM missing_upstreams WHERE upstream = ?", row["upstream"]
                )
