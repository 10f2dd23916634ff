"""A CA of the demo's kind that writes serving certificates into a folder."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from demo.pki import CertificateAuthority, write_credential


class Authority:
    """A CA that writes `ca.pem`, `tls.crt` and `tls.key` into a folder."""

    def __init__(self) -> None:
        self._authority = CertificateAuthority.create("test CA")

    @property
    def pem(self) -> str:
        return self._authority.certificate_pem.decode("ascii")

    def issue(
        self, folder: Path, valid: timedelta = timedelta(days=1), host: str = "127.0.0.1"
    ) -> str:
        """Write a new serving certificate and key; returns its serial number as OpenSSL does.

        With a negative `valid` it has expired that long ago.
        """
        backdated = timedelta() if valid > timedelta() else timedelta(hours=1) - valid
        dns, ips = (("localhost",), (host,)) if _is_address(host) else (("localhost", host), ())
        issued = self._authority.issue_server(
            dns=dns,
            ips=ips,
            lifetime=valid + backdated,
            now=datetime.now(UTC) - backdated,
        )
        (folder / "ca.pem").write_text(self.pem, "ascii")
        write_credential(folder, issued)
        serial = f"{x509.load_pem_x509_certificate(issued.certificate_pem).serial_number:X}"
        return serial.zfill(len(serial) + len(serial) % 2)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
