"""Dates of HTTP and of certificates as Unix time, in seconds.

The standard library's ways to read them (`datetime`, `email.utils`, `ssl.cert_time_to_seconds`)
import 0.5 MB, which would be a twentieth of the sidecar's start.
"""

import re
import time
from typing import Final

MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip

# RFC 9110 section 5.6.7, the form that senders must use.
_HTTP_DATE: Final = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
# ASN1_TIME_print of OpenSSL: "Jan  5 09:34:43 2026 GMT".
_CERTIFICATE_DATE: Final = re.compile(
    r"([A-Z][a-z]{2}) ([ 0-9][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4}) GMT"
)


def http_date(text: str) -> int:
    """When a `Date` header field says it is. Raises ValueError for what is no date."""
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        raise ValueError("no HTTP date")
    day, month, year, hour, minute, second = match.groups()
    return _unix_time(year, month, day, hour, minute, second)


def certificate_date(text: str) -> int:
    """`notBefore` or `notAfter` as `ssl` gives it. Raises ValueError for what is no date."""
    match = _CERTIFICATE_DATE.fullmatch(text)
    if match is None:
        raise ValueError("no date of a certificate")
    month, day, hour, minute, second, year = match.groups()
    return _unix_time(year, month, day, hour, minute, second)


def _unix_time(year: str, month: str, day: str, *time_of_day: str) -> int:
    date = (int(year), MONTHS.index(month) + 1, int(day))
    hour, minute, second = map(int, time_of_day)
    at = _days_since_1970(*date) * 86_400 + (hour * 60 + minute) * 60 + second
    if time.gmtime(at)[:6] != (*date, hour, minute, second):
        raise ValueError("no such day or time of day")
    return at


def _days_since_1970(year: int, month: int, day: int) -> int:
    """In the Gregorian calendar; counted from March on, so that a leap day is a year's last."""
    years, months = (year, month - 3) if month > 2 else (year - 1, month + 9)
    leap_days = years // 4 - years // 100 + years // 400
    return 365 * years + leap_days + (153 * months + 2) // 5 + day - 719_469
