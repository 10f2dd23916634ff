"""`make manifests`: render every kustomization and validate every object of it."""

import sys
import tempfile
from pathlib import Path

from tests.manifests.rendering import RENDERED, VERSIONS, faults, render


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as workspace:
        for name in RENDERED:
            objects = render(name, Path(workspace))
            found = [
                fault
                for version in (VERSIONS[0], VERSIONS[-1])
                for one in objects
                for fault in faults(one, version)
            ]
            failed += len(found)
            print(  # noqa: T201 - a terminal is listening
                f"{name}: {len(objects)} objects, {len(found)} faults "
                f"(Kubernetes {VERSIONS[0]} and {VERSIONS[-1]})"
            )
            for fault in found:
                print(f"  {fault}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
