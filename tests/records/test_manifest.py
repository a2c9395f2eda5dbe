"""A manifest names every file by its checksum; a stranger's names lead nowhere."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_research.core.errors import RecordError
from smd_research.records.manifest import (
    MANIFEST,
    Manifest,
    checksums,
    leaves,
    manifest_bytes,
    mismatches,
    read_manifest,
    walked,
)

FILES = {"a.txt": b"a", "b/c.txt": b"c", "b/d/e.txt": b"e"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    told = Manifest("smd-research 1", "", "smd publish", "mit", "Title", "About", checksums(FILES))
    (tmp_path / MANIFEST).write_bytes(manifest_bytes(told))
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    told = read_manifest(folder)
    assert (told.licence, told.title, told.about, told.files) == ("mit", "Title", "About", checksums(FILES))
    assert walked(folder) == (sorted(FILES), [])
    assert list(mismatches(folder, told, sorted(FILES))) == []


def test_every_difference_is_a_line(folder: Path) -> None:
    (folder / "a.txt").write_text("b")
    (folder / "b" / "c.txt").unlink()
    (folder / "b" / "new").write_text("")
    files, _ = walked(folder)
    assert list(mismatches(folder, read_manifest(folder), files)) == [
        "b/c.txt: missing",
        "a.txt: changed, its checksum is another than the manifest's",
        "b/new: not in the manifest",
    ]


def test_links_and_devices_are_no_files(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "a.txt")
    (folder / "b" / "up").symlink_to(folder)
    os.mkfifo(folder / "b" / "pipe")
    assert walked(folder) == (sorted(FILES), ["b/pipe", "b/up", "link"])


@given(st.text(alphabet="ab./\\~\0", max_size=8))
def test_a_name_that_does_not_leave_stays_below_its_folder(name: str) -> None:
    base = Path("/published/folder")
    if not leaves(name):
        assert Path(os.path.normpath(base / name)).is_relative_to(base)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "~/x", "a\\..\\x", "a\0b"])
def test_names_that_leave(name: str) -> None:
    assert leaves(name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "its format is not 1"),
        (b'{"format": 1}', "made_by is no text"),
        (
            b'{"format":1,"made_by":"","commit":"","command":"","licence":"","title":"\\ud800","about":"","files":{}}',
            "surrogates",
        ),
        (
            b'{"format":1,"made_by":"","commit":"","command":"","licence":"","title":"","about":"","files":{"a":"b"}}',
            "files are no checksums",
        ),
    ],
)
def test_what_is_no_manifest_is_one_line(folder: Path, content: bytes, said: str) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(RecordError, match=said):
        read_manifest(folder)


def test_a_manifest_that_is_a_link_is_none(folder: Path) -> None:
    (folder / MANIFEST).rename(folder / "other")
    (folder / MANIFEST).symlink_to(folder / "other")
    with pytest.raises(RecordError, match="holds no manifest"):
        read_manifest(folder)
