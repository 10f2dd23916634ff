"""Says that JWTs are refused here, and what to compare where this sidecar's own settings cause it.

A sidecar whose TOKENWARD_RESOURCE is not what the authserver's map says refuses every JWT by
itself, and the authserver hears nothing of it.
"""

from typing import Final

from chassis.logs import Log
from sidecar.unverified_jwt import OTHER_ISSUER, OTHER_RESOURCE

_log = Log("local_api")

# Any client can send a foreign JWT: it must not fill the log.
_REPEAT_SECONDS: Final = 300.0

_REMEDIES: Final = {
    OTHER_RESOURCE: "if all JWTs are refused, compare TOKENWARD_RESOURCE with resources[].resource"
    " of this workload in the authserver's configuration",
    OTHER_ISSUER: "if all JWTs are refused, compare TOKENWARD_ISSUER with issuer in the"
    " authserver's configuration",
}


class MismatchLog:
    """Logs each kind of mismatch at once, and then at most every five minutes."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def report(self, problem: str, now: float) -> None:
        """A JWT was refused for `problem`; `now` is a monotonic clock in seconds."""
        remedy = _REMEDIES.get(problem)
        logged_at = self._logged_at.get(problem)
        if remedy is None or (logged_at is not None and now - logged_at < _REPEAT_SECONDS):
            return
        self._logged_at[problem] = now
        _log.warning("jwt_does_not_fit", reason=problem, remedy=remedy)
