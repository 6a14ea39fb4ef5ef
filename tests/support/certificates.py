"""Authorities and certificates for TLS, in files that can be exchanged like a mounted Secret."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import trustme

from quintet_servicekit.settings import TlsSettings

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Identity:
    """A folder with `tls.crt`, `tls.key` and `ca.crt`, which is a link that `issue` moves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._issued = 0

    def issue(
        self,
        authority: trustme.CA,
        *names: str,
        trusted: tuple[trustme.CA, ...] = (),
        expired: bool = False,
    ) -> Identity:
        """Put a new certificate with these names there, all files at one moment; `trusted`
        are the authorities of ca.crt, by default the certificate's own."""
        self._issued += 1
        fresh = self.folder.with_name(f".{self.folder.name}-{self._issued}")
        fresh.mkdir(parents=True)
        certificate = (
            authority.issue_cert(
                *names, not_before=LONG_AGO, not_after=datetime(2002, 1, 1, tzinfo=UTC)
            )
            if expired
            else authority.issue_cert(*names)
        )
        certificate.private_key_pem.write_to_path(fresh / "tls.key")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(fresh / "tls.crt", append=True)
        for one in trusted or (authority,):
            one.cert_pem.write_to_path(fresh / "ca.crt", append=True)
        link = fresh.with_suffix(".link")
        link.symlink_to(fresh)
        link.replace(self.folder)
        return self

    def settings(self, **more: object) -> TlsSettings:
        """Return settings that name these files; channels look at them often."""
        return TlsSettings.model_validate(
            {
                "certificate": self.folder / "tls.crt",
                "key": self.folder / "tls.key",
                "ca": self.folder / "ca.crt",
                "reload_seconds": 0.05,
                **more,
            }
        )

    def variables(self, prefix: str) -> dict[str, str]:
        """Return the environment that names these files, for `QUINTET_TOKENIZER_TLS__`."""
        return {
            f"{prefix}CERTIFICATE": str(self.folder / "tls.crt"),
            f"{prefix}KEY": str(self.folder / "tls.key"),
            f"{prefix}CA": str(self.folder / "ca.crt"),
        }
