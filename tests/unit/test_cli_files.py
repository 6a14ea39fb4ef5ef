from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quintet_cli import files
from quintet_cli.files import Document, Rejected, Source, find, heading, read


def _ids(*paths: Path) -> list[str]:
    return [item.id for item in find(paths) if isinstance(item, Source)]


def _write(path: Path, content: bytes | str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _document(path: Path) -> Document:
    document = read(Source(path, path.name))
    assert isinstance(document, Document), document
    return document


def _reason(path: Path) -> str:
    rejected = read(Source(path, path.name))
    assert isinstance(rejected, Rejected)
    return rejected.reason


def _as_anybody(statement: str, path: Path) -> str:
    """Return what a statement about `path` prints where permissions hold, for root too."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    code = "import sys, pathlib\nfrom quintet_cli.files import Source, find, read\n"
    code += f"path = pathlib.Path(sys.argv[1])\n{statement}"
    command = [*(bound if os.geteuid() == 0 else []), sys.executable, "-c", code, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class TestFind:
    def test_a_folder_is_walked_in_the_order_of_its_names(self, tmp_path: Path) -> None:
        for name in ("b.md", "a/z.txt", "a/b/c.rst", "c.HTML", "a.htm"):
            _write(tmp_path / name)
        assert _ids(tmp_path) == ["a/b/c.rst", "a/z.txt", "a.htm", "b.md", "c.HTML"]

    def test_hidden_names_and_other_types_are_left_out(self, tmp_path: Path) -> None:
        for name in (".git/a.md", ".hidden.md", "image.png", "Makefile", "seen.md"):
            _write(tmp_path / name)
        assert _ids(tmp_path) == ["seen.md"]

    def test_a_hidden_folder_that_is_named_is_read(self, tmp_path: Path) -> None:
        _write(tmp_path / ".notes/a.md")
        assert _ids(tmp_path / ".notes") == ["a.md"]

    def test_a_file_that_is_named_has_its_name_as_id(self, tmp_path: Path) -> None:
        assert _ids(_write(tmp_path / "deep/a.md")) == ["a.md"]

    def test_a_named_file_of_another_type_is_rejected(self, tmp_path: Path) -> None:
        [item] = find([_write(tmp_path / "a.pdf")])
        assert isinstance(item, Rejected)
        assert "not a type that is read (.md .txt .rst .html .htm)" in item.reason

    def test_a_loop_of_links_ends(self, tmp_path: Path) -> None:
        _write(tmp_path / "a/x.md")
        (tmp_path / "a/up").symlink_to(tmp_path, target_is_directory=True)
        (tmp_path / "a/self.md").symlink_to(tmp_path / "a/self.md")
        ids = _ids(tmp_path)
        assert ids == ["a/self.md", "a/x.md"]
        assert _reason(tmp_path / "a/self.md") == "too many levels of symbolic links"

    def test_a_linked_folder_elsewhere_is_read(self, tmp_path: Path) -> None:
        _write(tmp_path / "elsewhere/x.md")
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs/linked").symlink_to(tmp_path / "elsewhere")
        assert _ids(tmp_path / "docs") == ["linked/x.md"]

    def test_a_link_to_nothing_is_named_as_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere.md")
        assert _ids(tmp_path) == ["gone.md"]
        assert _reason(tmp_path / "gone.md") == "no such file or directory"

    def test_a_file_that_is_named_twice_is_read_once(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "a.md")
        assert _ids(path, tmp_path, tmp_path) == ["a.md"]

    def test_two_files_with_one_id_are_told(self, tmp_path: Path) -> None:
        one, two = _write(tmp_path / "1/a.md"), _write(tmp_path / "2/a.md")
        items = list(find([one, two]))
        assert items[0] == Source(one, "a.md")
        assert items[1] == Rejected(two, "a.md", f"{one} has the same id")

    def test_a_name_that_is_not_utf8_is_rejected_and_can_be_printed(self, tmp_path: Path) -> None:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("x")
        [item] = find([tmp_path])
        assert isinstance(item, Rejected)
        assert item.reason == "its name is not UTF-8"
        assert item.name.endswith("caf\N{REPLACEMENT CHARACTER}.md")
        item.name.encode()

    def test_a_folder_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        _write(tmp_path / "closed/a.md")
        (tmp_path / "closed").chmod(0)
        told = _as_anybody("[print(it.reason) for it in find([path])]", tmp_path)
        (tmp_path / "closed").chmod(0o700)
        assert told == "permission denied"


class TestRead:
    def test_metadata_tell_path_type_and_size(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "a.md", "# Title\n\nbody é")
        document = read(Source(path, "sub/a.md"))
        assert document == Document(
            id="sub/a.md",
            title="Title",
            content="# Title\n\nbody é",
            metadata={
                "path": "sub/a.md",
                "type": "markdown",
                "size": 16,
            },
        )

    def test_html_is_read_as_text(self, tmp_path: Path) -> None:
        document = _document(_write(tmp_path / "a.HTM", "<title>T</title><p>a<p>b"))
        assert (document.title, document.content) == ("T", "a\n\nb")
        assert document.metadata["type"] == "html"

    def test_without_a_heading_the_file_name_is_the_title(self, tmp_path: Path) -> None:
        assert _document(_write(tmp_path / "notes.txt", "just text")).title == "notes.txt"

    def test_a_title_is_cut_at_what_the_gateway_takes(self, tmp_path: Path) -> None:
        assert len(_document(_write(tmp_path / "a.md", "# " + "x" * 5000)).title) == 1000

    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path: Path) -> None:
        assert _document(_write(tmp_path / "a.txt", b"\xef\xbb\xbftext")).content == "text"

    def test_line_ends_are_kept_so_that_offsets_are_those_of_the_file(self, tmp_path: Path) -> None:
        assert _document(_write(tmp_path / "a.txt", b"one\r\ntwo")).content == "one\r\ntwo"

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"caf\xe9 noir", "not UTF-8: byte 0xe9 at offset 3"),
            (b"\xff\xfeh\0i\0", "not UTF-8: byte 0xff at offset 0"),
            (b"\xef\xbb\xbfab\xe9", "not UTF-8: byte 0xe9 at offset 5"),
            (b"ab\0c", "not text: NUL byte at offset 2"),
            (b"", "empty"),
            (b" \n\t\n", "no text in it"),
        ],
    )
    def test_what_is_not_text_is_rejected_with_the_place(
        self, tmp_path: Path, data: bytes, reason: str
    ) -> None:
        assert _reason(_write(tmp_path / "a.txt", data)) == reason

    def test_html_without_text_is_rejected(self, tmp_path: Path) -> None:
        assert _reason(_write(tmp_path / "a.html", "<script>1</script>")) == "no text in it"

    def test_a_file_of_50_megabytes_is_rejected_with_its_size(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        with path.open("wb") as file:
            file.truncate(50_000_000)
        assert _reason(path) == "too large: 50,000,000 bytes, and at most 15,728,640 are accepted"

    def test_a_named_pipe_is_rejected_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.md")
        assert _reason(tmp_path / "pipe.md") == "not a regular file"

    def test_a_file_that_is_gone_is_rejected(self, tmp_path: Path) -> None:
        assert _reason(tmp_path / "gone.md") == "no such file or directory"

    def test_a_file_that_may_not_be_read_is_rejected(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "a.md")
        path.chmod(0)
        told = _as_anybody("print(read(Source(path, path.name)).reason)", path)
        assert told == "permission denied"

    def test_the_largest_file_that_is_accepted_fits_a_message(self) -> None:
        assert files.MAX_BYTES < 16 * 2**20


class TestHeading:
    @pytest.mark.parametrize(
        ("kind", "text", "title"),
        [
            ("markdown", "intro\n\n## The *second* level ##\n# First", "The *second* level"),
            ("markdown", "Under\n=====\n", "Under"),
            ("markdown", "Also\n---\n", "Also"),
            ("markdown", "```\n# no\n```\n# Yes", "Yes"),
            ("markdown", "#hashtag\n#!shebang\n# Real", "Real"),
            ("markdown", "---\ntitle: 'Front'\nlayout: x\n---\n# Other", "Front"),
            ("markdown", "---\nlayout: x\n---\n# Other", "Other"),
            ("markdown", "a paragraph\n\n---\n\nanother", ""),
            ("markdown", "| a |\n|---|\n", ""),
            ("rst", "=====\nTitle\n=====\n\ntext", "Title"),
            ("rst", 'The "with" statement\n********************\n', 'The "with" statement'),
            ("rst", "Too long for it\n===\n", ""),
            ("rst", "=====  ====\na      b\n=====  ====\n", ""),
            ("rst", "# a comment\nText\n~~~~\n", "Text"),
            ("text", "TITLE\n=====\ntext", "TITLE"),
            ("text", "# no heading here", ""),
            ("text", "", ""),
        ],
    )
    def test_the_first_heading_is_found(self, kind: str, text: str, title: str) -> None:
        assert heading(text, kind) == title
