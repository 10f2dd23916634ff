"""Which leaves an object has that is gone: those in its status, and those of its pods."""

from collections.abc import Iterable
from datetime import datetime

from cryptography import x509

from controller.api.objects import Object, path
from controller.issuing import authority


def of_requests(requests: Iterable[Object], spiffe_id: str) -> dict[str, datetime]:
    """Serial and end of each certificate of this identity in PodCertificateRequests.

    The API server keeps answered requests for a quarter of an hour at least. What was issued
    earlier began before a namesake could be made, so the map's `notBefore` refuses it.
    """
    issued = {}
    wanted = [x509.UniformResourceIdentifier(spiffe_id)]
    for one in requests:
        chain = path(one, "status", "certificateChain")
        for leaf in authority.certificates(str(chain).encode())[:1] if chain else ():
            try:
                names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            except x509.ExtensionNotFound:
                continue
            if list(names) == wanted:
                issued[f"{leaf.serial_number:X}"] = leaf.not_valid_after_utc
    return issued
