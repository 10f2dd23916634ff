"""What an operator should know of a configuration although it has no faults."""

from collections.abc import Iterator
from typing import Final

from authserver.config.settings import Settings
from authserver.config.upstream_apis import ApiSettings
from chassis.process import ConfigProblem

# Last segments of endpoints that run other requests, or mint, echo or exchange credentials.
_RULES_END: Final = frozenset(
    {
        "$batch", "_batch", "_bulk", "access_token", "access_tokens", "batch", "bulk", "graphql",
        "jsonrpc", "oauth", "oauth2", "rpc", "sts", "token", "tokens",
    }
)  # fmt: skip


def notes_of(settings: Settings) -> Iterator[ConfigProblem]:
    """One note for each path of an API at which rules of method and path decide nothing."""
    for index, upstream in enumerate(settings.upstreams):
        for position, api in enumerate(upstream.apis):
            place = f"upstreams[{index}].apis[{position}].pathPrefixes"
            for prefix in api.path_prefixes:
                if problem := _note(api, prefix):
                    yield ConfigProblem(place, problem)


def _note(api: ApiSettings, prefix: str) -> str:
    segments = [*api.base_path.split("/"), *prefix.split("/")]
    last = next((segment for segment in reversed(segments) if segment), "")
    if not last:
        return (
            "/ is the whole host, with its GraphQL, batch and token endpoints if it has them: "
            "rules of method and path end at those"
        )
    if last.lower() in _RULES_END:
        return (
            f"{prefix} looks like a GraphQL, batch or token endpoint: rules of method and path "
            "end there, and a call can do all that the token may"
        )
    return ""
