"""The key that a local stack makes at its first start."""

from __future__ import annotations

from pathlib import Path

from quintet_local.state import HEADER_FILE, locked
from quintet_servicekit.api_key import parsed


def test_it_is_made_once_for_its_owner_alone_and_made_anew_where_it_is_damaged(
    tmp_path: Path,
) -> None:
    with locked(tmp_path / "state") as folder:
        file = folder.api_key()
        first = file.read_text()
        assert parsed(first) is not None
        assert folder.api_key().read_text() == first
        header = folder.path / HEADER_FILE
        assert header.read_text() == f"authorization: Bearer {first}\n"
        for each in (file, header):
            assert each.stat().st_mode & 0o777 == 0o600
        file.write_text(first[:-1])
        again = folder.api_key().read_text()
        assert parsed(again) is not None
        assert again != first
