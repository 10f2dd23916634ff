"""What the journey set out to show, and whether it held."""

from collections.abc import Callable


class Findings:
    """What held and what did not."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.broken: list[str] = []
        self._say = say

    def expect(self, held: bool, statement: str, otherwise: object = "") -> None:
        """Print and remember whether `statement` holds; `otherwise` is what was found instead."""
        if held:
            self._say(f"  ok {statement}")
        else:
            self.broken.append(f"{statement}: {otherwise}" if otherwise != "" else statement)
            self._say(f"  NO {self.broken[-1]}")
