"""A file is there whole, or what stood in its place is as it was."""

import errno
import os
from pathlib import Path

import pytest

from smd_research.core.errors import RecordError
from smd_research.core.whole_file import write_whole


def test_it_is_there_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for content in (b"one", b"two"):
        assert write_whole(path, content).read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_whole(tmp_path / "a.txt", b"one")

    def half(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(RecordError, match=r"cannot write .*a\.txt: No space left on device; free space"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_below_a_file_is_one_line(tmp_path: Path) -> None:
    file = write_whole(tmp_path / "a.txt", b"one")
    with pytest.raises(RecordError, match="cannot write") as caught:
        write_whole(file / "b.txt", b"two")
    assert "\n" not in str(caught.value)


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "a.txt")
    assert write_whole(link, b"one") == link
    assert link.is_symlink()
    assert (tmp_path / "a.txt").read_bytes() == b"one"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, b"two")
        assert os.read(reader, 9) == b"two"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
