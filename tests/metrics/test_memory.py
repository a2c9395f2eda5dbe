"""Shared memory is counted once, by the mappings of a file."""

import mmap
import os
from pathlib import Path

import pytest

from smd_research.metrics import Mapped, mapped, private_bytes, shared_once

PAGES = 64
SIZE = PAGES * mmap.PAGESIZE


def test_resident_pages_of_a_mapping_are_counted_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(SIZE))
    inode = path.stat().st_ino
    assert mapped(os.getpid(), inode, "weights") == Mapped()
    with path.open("rb") as file, mmap.mmap(file.fileno(), SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as one:
        assert sum(one[:: mmap.PAGESIZE]) == 0
        once = mapped(os.getpid(), inode, "weights")
        assert once == Mapped(SIZE, SIZE, SIZE)
        assert mapped(os.getpid(), inode, "other") == Mapped()
        with mmap.mmap(file.fileno(), SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as two:
            assert sum(two[:: mmap.PAGESIZE]) == 0
            twice = mapped(os.getpid(), inode, "weights")
            assert (twice.rss, twice.private) == (2 * SIZE, 0)
            assert shared_once([os.getpid()], inode, "weights") == pytest.approx(SIZE, abs=4096)


def test_private_memory_grows_by_what_is_written() -> None:
    before = private_bytes(os.getpid())
    held = mmap.mmap(-1, 32 * 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.write(b"x" * len(held))
    grown = private_bytes(os.getpid()) - before
    held.close()
    assert 30 * 2**20 < grown < 100 * 2**20
