"""The guard's literals: what a sidecar must be, written into the admission policy itself.

The policy ships with the manifests, and its variable `lines` is ours: the lines of the webhook's
file, as a CEL list. A policy parameter would do the same, but API servers up to 1.36 stop following
parameters after the last such binding went (kubernetes#130887).
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from controller.api.objects import Object, annotations, format_time, metadata, parse_time

VARIABLE: Final = "lines"
IMAGES: Final = "tokenward.dev/allowed-images"

# A former image of the sidecar passes for so long: replicas of the webhook are replaced one by one.
FORMER_IMAGE: Final = timedelta(hours=24)


def allowed_images(
    policy: Object | None, image: str, now: datetime
) -> Mapping[str, datetime | None]:
    """The images that may be injected now, each with its end; None for the configured one.

    What was configured before is in the policy's annotation; the first look at another image
    begins its last day.
    """
    images: dict[str, datetime | None] = {}
    for former, until in _recorded(policy).items():
        end = until or now + FORMER_IMAGE
        if former != image and now < end:
            images[former] = end
    if image:
        images[image] = None
    return images


def former_images(
    policy: Object | None, image: str, now: datetime, running: Collection[str]
) -> Mapping[str, datetime]:
    """Images that may not be injected any more, and that some running pod has; each with its end.

    Such pods keep their image, and their certificates are renewed. An image that no pod has is
    forgotten.
    """
    return {
        former: until
        for former, until in _recorded(policy).items()
        if former != image and until is not None and until <= now and former in running
    }


def _recorded(policy: Object | None) -> Mapping[str, datetime | None]:
    try:
        images = json.loads(annotations(policy or {}).get(IMAGES, "{}"))
        return {str(image): parse_time(until) for image, until in images.items()}
    except (ValueError, AttributeError):
        return {}


def literals(
    policy: Object,
    text: str,
    images: Mapping[str, datetime | None],
    former: Mapping[str, datetime] | None = None,
) -> Object:
    """Our one variable of the policy, and our annotation, which remembers `former` images too."""
    lines = [one for one in text.splitlines() if not one.startswith("image: ")]
    lines += [f"image: {image}" for image in sorted(images)]
    recorded = {
        image: format_time(until) if until is not None else None
        for image, until in {**(former or {}), **images}.items()
    }
    variable: dict[str, Any] = {"name": VARIABLE, "expression": _list(lines)}
    return {
        "apiVersion": policy["apiVersion"],
        "kind": policy["kind"],
        "metadata": {
            "name": metadata(policy)["name"],
            "annotations": {IMAGES: json.dumps(recorded, sort_keys=True)},
        },
        "spec": {"variables": [variable]},
    }


def _list(lines: Collection[str]) -> str:
    """A CEL list of strings; JSON's escapes are CEL's."""
    return json.dumps(list(lines))
