"""TLS from files: credentials of servers and channels that are read anew when the files change.

Files are replaced while they are used (a mounted Secret is, as a whole). So what was read
counts only if it did not change meanwhile and the key belongs to the certificate; until then
what was read before stays in use.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import Counter

from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.settings import TlsSettings

NAMES_KEY = "x509_subject_alternative_name"
"""What a call's peer is known by: the names in the caller's certificate."""

_LOADED = Counter(
    "quintet_tls_loads_total",
    'Times that certificates were read from changed files: "used", or "refused".',
    ("outcome",),
)
# From 0 on, so that the first one counts as an increase.
_USED, _REFUSED = _LOADED.labels("used"), _LOADED.labels("refused")

Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Pem:
    """Contents of the files, None where the settings name none."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """Key and certificate, of settings that name them."""
        if self.key is None or self.certificate is None:
            raise ValueError("the settings name no certificate")
        return self.key, self.certificate


class CertificateFiles:
    """The files that `settings` name. `pem` is what they held when they were last whole.

    Raises OSError (`ssl.SSLError` is one) where they cannot be used from the start.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        # Handshakes ask from threads of gRPC.
        self._lock = threading.Lock()
        self._stamps = self._present()
        self.pem = self._read()

    def changed(self) -> Pem | None:
        """Return what the files hold if that is new and whole. Blocks for three `stat`, and
        for small files where they changed."""
        with self._lock:
            try:
                stamps = self._present()
                if stamps == self._stamps:
                    return None
                pem = self._read()
                if self._present() != stamps:
                    return None
            except OSError as error:
                _REFUSED.inc()
                telemetry.logger().warning("certificates refused", cause=type(error).__name__)
                return None
            self._stamps, self.pem = stamps, pem
            _USED.inc()
            telemetry.logger().info("certificates read anew")
            return pem

    def _present(self) -> Stamps:
        found = (path.stat() for path in self._paths() if path is not None)
        return tuple((it.st_ino, it.st_mtime_ns, it.st_size) for it in found)

    def _paths(self) -> tuple[Path | None, Path | None, Path | None]:
        settings = self._settings
        return settings.ca, settings.certificate, settings.key

    def _read(self) -> Pem:
        ca, certificate, key = self._paths()
        # Only to refuse what OpenSSL would refuse: gRPC ends the process for some of it.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        if ca is not None:
            context.load_verify_locations(ca)
        return Pem(*(None if path is None else path.read_bytes() for path in self._paths()))


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Return credentials that look at the files whenever a connection begins.

    Raises as `CertificateFiles` does.
    """
    files = CertificateFiles(settings)

    def configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([pem.pair], pem.ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        pem = files.changed()
        return None if pem is None else configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        configuration(files.pem),
        fetch,  # type: ignore[arg-type]  # None is gRPC's own 'as before'
        settings.require_client,
    )


def channel_credentials(pem: Pem) -> grpc.ChannelCredentials:
    """Return credentials with the authorities to trust, and who we are where that is known."""
    return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)


def check_caller(callers: frozenset[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Raise `ServiceError` PEER_NOT_ALLOWED for a caller whose certificate has none of these
    names; where there are none, anybody may call."""
    if not callers:
        return
    # The common name is told instead where a certificate has no other name.
    named = context.peer_identity_key() == NAMES_KEY
    if not named or callers.isdisjoint(context.peer_identities() or ()):
        raise ServiceError(
            Reason.PEER_NOT_ALLOWED, "the caller's certificate has no name that may call"
        )
