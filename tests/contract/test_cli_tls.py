"""The command line's certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from support.certificates import Identity
from support.command_line import Quintet


def test_certificates_that_cannot_be_used_are_told_with_the_variables_that_name_them(
    quintet: Quintet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUINTET_TLS_CA", str(tmp_path / "nothing.crt"))
    ran = quintet("collections", "--json")
    assert ran.status != 0
    assert ran.error["reason"] == "BAD_CERTIFICATES"
    assert "$QUINTET_TLS_CA" in ran.error["advice"]


def test_a_certificate_without_its_key_is_refused(
    quintet: Quintet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = Identity(tmp_path / "client").issue(trustme.CA(), "client").settings()
    monkeypatch.setenv("QUINTET_TLS_CA", str(tls.ca))
    monkeypatch.setenv("QUINTET_TLS_CERTIFICATE", str(tls.certificate))
    assert quintet("collections", "--json").error["reason"] == "BAD_CERTIFICATES"


def test_a_gateway_that_speaks_no_tls_is_not_called_without_it(
    quintet: Quintet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where authorities are named, nothing goes out in the clear."""
    reached = "INTERNAL"  # what this gateway says of a call that no test prepared
    assert quintet("collections", "--json").error["reason"] == reached
    tls = Identity(tmp_path / "client").issue(trustme.CA(), "client").settings()
    monkeypatch.setenv("QUINTET_TLS_CA", str(tls.ca))
    assert quintet("collections", "--json").error["reason"] == "DEPENDENCY_UNAVAILABLE"
