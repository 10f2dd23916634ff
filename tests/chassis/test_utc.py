"""Dates of HTTP and of certificates, beside what the standard library reads in them."""

import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from chassis.utc import certificate_date, http_date

# Each day of five years, two of them leap years, and the ends of centuries that are and are not.
DAYS = [datetime(2023, 1, 1, 23, 59, 58, tzinfo=UTC) + timedelta(days=n) for n in range(5 * 366)]
DAYS += [
    datetime(year, month, day, tzinfo=UTC)
    for year in (1970, 2000, 2100, 2400, 9999)
    for month, day in ((1, 1), (2, 28), (3, 1), (12, 31))
]


def test_a_date_is_what_the_standard_library_reads() -> None:
    for day in DAYS:
        assert http_date(format_datetime(day, usegmt=True)) == day.timestamp()
        printed = f"{day:%b} {day.day:2d} {day:%H:%M:%S} {day.year:04d} GMT"
        assert certificate_date(printed) == ssl.cert_time_to_seconds(printed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sat, 31 Feb 2026 00:00:00 GMT",
        "Sun, 29 Feb 2026 00:00:00 GMT",
        "Thu, 00 Jan 2026 00:00:00 GMT",
        "Thu, 01 Foo 2026 00:00:00 GMT",
        "Thu, 01 Jan 2026 24:00:00 GMT",
        "Thu, 01 Jan 2026 00:60:00 GMT",
        "Thu, 01 Jan 2026 00:00:00 UTC",
        "Thu, 01 Jan 2026 00:00:00 GMT\n",
        "Thursday, 01-Jan-26 00:00:00 GMT",
    ],
)
def test_what_is_no_http_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no date|no HTTP date|no such day|not in tuple"):
        http_date(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Feb 29 00:00:00 2026 GMT",
        "Feb 31 00:00:00 2026 GMT",
        "Jan  5 09:34:60 2026 GMT",
        "Foo  5 09:34:43 2026 GMT",
        "Jan  5 09:34:43 2026",
        "Jan  5 09:34:43 2026 GMT ",
    ],
)
def test_what_is_no_date_of_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no date|no HTTP date|no such day|not in tuple"):
        certificate_date(text)
