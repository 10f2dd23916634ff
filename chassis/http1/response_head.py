"""Reads the head of a response as strictly as that of a request."""

import re
from typing import Final, NamedTuple

from httptools import HttpResponseParser

from chassis.http1.errors import Malformed
from chassis.http1.head import check_lines, read_fields, read_keep_alive, read_length
from chassis.http1.limits import Limits
from chassis.http1.request import Headers

UNFRAMED: Final = -1

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*)?\r\n")


class ReadHead(NamedTuple):
    """The head of a final response. A server that answers the same again sends the same bytes.

    `announced` is the body's length; None where it comes in chunks, `UNFRAMED` without a word.
    """

    raw: bytes
    status: int
    headers: Headers
    announced: int | None
    stays: bool


def read_response_head(raw: bytes, limits: Limits) -> ReadHead | None:
    """The head of a final response; None for an interim one. Raises Refused."""
    check_lines(raw)
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise Malformed("status_line")
    status, minor_version = int(line[2]), int(line[1])
    headers = read_fields(HttpResponseParser, raw, limits)
    if status == 101:
        raise Malformed("interim_response")
    if status < 200:
        return None
    announced = read_length(headers, minor_version, otherwise=UNFRAMED)
    return ReadHead(raw, status, headers, announced, read_keep_alive(headers, minor_version))
