"""What has to fit between exchanged upstreams, those they are made of, and resources.

Each rule is a pure function of names, so that the configuration file and the files of
`resourcesDir` are held to the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

WHEN_NEEDED: Final = "WhenNeeded"


def problem_of_parent(parent: str, parents: Mapping[str, str | None]) -> str | None:
    """What is wrong with `exchange.upstream`; `parents` has that of every upstream, or None."""
    if parent not in parents:
        known = ", ".join(sorted(name for name, of in parents.items() if of is None)) or "none"
        return f"no upstream has this name (users sign in at: {known})"
    if parents[parent] is not None:
        return (
            f"{parent} is itself made by an exchange: name the upstream at which users sign in, so "
            "that no circle and no chain comes about"
        )
    return None


def problems_of_resource(
    upstreams: Sequence[tuple[str, str]], parents: Mapping[str, str | None]
) -> Iterator[tuple[int, str]]:
    """What is wrong with a resource's upstreams, each with its place.

    `upstreams` are names with their `connect`, in the resource's order.
    """
    listed = {name for name, _ in upstreams}
    for position, (name, connect) in enumerate(upstreams):
        parent = parents.get(name)
        if parent is None:
            continue
        if position == 0:
            yield (
                position,
                f"the first upstream names the user, and nobody signs in at {name}: put {parent} "
                "before it",
            )
        elif parent not in listed:
            yield position, f"{name} is made of {parent}, which has to be in this list too"
        if connect == WHEN_NEEDED:
            yield position, f"nobody connects {name} by itself: say WhenNeeded of {parent}"
