"""Every mask is used once: in order, across aborts, restarts, crashes and rollbacks; what is stored really cancels."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.boundary.process import fork_server
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.defenses.slip.bank import BLOCK, MaskBank, Masks, MasksExhaustedError
from smd_research.defenses.slip.storage import FolderStorage, MaskStorage, MemoryStorage
from smd_research.mechanisms.integers.field import WIDE
from smd_research.mechanisms.integers.masks import MaskStream

KEY = bytes(range(32))


def _weights() -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (7, 5), 1: (3, 9)}
    return {i: torch.randint(-32767, 32768, s, generator=generator, dtype=torch.int16) for i, s in shapes.items()}


def _bank(storage: MaskStorage | None = None, limit: int | None = None) -> MaskBank:
    weights = _weights()
    return MaskBank(MaskStream(KEY), WIDE, weights, storage or MemoryStorage(weights), limit)


def _folder(path: Path) -> FolderStorage:
    return FolderStorage(path, _weights(), torch.device("cpu"))


@given(takes=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 300)), max_size=8), ahead=st.integers(0, 400))
@settings(deadline=None, max_examples=25)
def test_masks_cancel_and_never_repeat(takes: list[tuple[int, int]], ahead: int) -> None:
    bank, weights, seen = _bank(), _weights(), set()
    bank.reserve({0: ahead, 1: ahead})
    for product, rows in takes:
        masks = bank.take(product, rows)
        for row, use in zip(masks.r, range(masks.use, masks.use + rows), strict=True):
            width = weights[product].shape[1]
            block = bank._stream.uniform(use // BLOCK, product, BLOCK * width, WIDE.prime)
            assert torch.equal(row, block.view(BLOCK, width)[use % BLOCK])
        exact = masks.r.numpy().astype(object) @ weights[product].numpy().astype(object).T % WIDE.prime
        assert (exact == masks.c.numpy()).all()
        used = {(product, masks.use + row) for row in range(rows)}
        assert not used & seen
        seen |= used
        for product, (first, left) in bank._masks.items():  # the rest of a block, whatever was taken
            assert first == bank._next[product]
            assert left.untyped_storage().nbytes() <= 8 * BLOCK * weights[product].shape[1]


def test_offline_work_is_counted_apart() -> None:
    bank = _bank()
    bank.reserve({0: 10, 1: 4})
    assert bank.offline.rows == 14
    assert bank.offline.flops == 2 * (10 * 35 + 4 * 27)
    assert bank.offline.seconds > 0
    assert bank.nbytes == 8 * (10 * 7 + 4 * 3)
    bank.take(0, 10)
    assert bank.offline.rows == 14


def test_what_one_request_used_up_does_not_stand_beside_the_next_ones_masks() -> None:
    bank = _bank()
    for _ in range(3):
        bank.reserve({0: 10, 1: 4})
        assert bank.nbytes == 8 * (10 * 7 + 4 * 3)
        bank.take(0, 10)
        bank.take(1, 4)
    bank.reserve({0: 10, 1: 4})
    bank.take(0, 9)
    bank.reserve({0: 10, 1: 4})  # a row is left of what was prepared before
    assert bank.nbytes == 8 * ((10 + 9) * 7 + 4 * 3)


def test_an_exhausted_bank_says_so_and_uses_nothing() -> None:
    bank = _bank(limit=8)
    assert (bank.left(0), bank.left(1)) == (8, 8)
    bank.take(0, 6)
    for call in (lambda: bank.take(0, 3), lambda: bank.reserve({0: 3, 1: 1})):
        with pytest.raises(
            MasksExhaustedError, match="3 rows of product 0 are needed, 2 of masks=8 are left"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert (bank.left(0), bank.left(1)) == (2, 8)
    assert bank.take(0, 2).use == 6


def test_an_abort_burns_every_mask() -> None:
    bank = _bank(limit=8)
    bank.take(0, 1)
    bank.abort("the device lied")
    assert bank.nbytes == 0
    for call in (lambda: bank.take(0, 1), lambda: bank.reserve({1: 1})):
        with pytest.raises(ProtocolError, match="the device lied"):
            call()


def _rows(masks: Masks) -> list[bytes]:
    """Every row of masks as bytes."""
    return [row.numpy().tobytes() for row in masks.r]


def _used(folder: Path, *takes: int, close: bool = True) -> list[bytes]:
    """The masks that a session on a folder sends, row by row; without ``close`` it ends as a killed process does."""
    bank = _bank(_folder(folder))
    bank.reserve({0: 150, 1: 150})
    found = [row for rows in takes for product in (0, 1) for row in _rows(bank.take(product, rows))]
    bank.close() if close else os.close(bank._storage._lock)  # type: ignore[attr-defined]
    return found


def _restored(folder: Path, backup: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


ROLLBACKS: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda folder, backup: None,
    "a restored backup": _restored,
    "a deleted folder": lambda folder, backup: shutil.rmtree(folder),
    "runs that were put back": lambda folder, backup: shutil.copytree(backup, folder, dirs_exist_ok=True),
}


@pytest.mark.parametrize("rollback", ROLLBACKS)
@pytest.mark.parametrize("close", [True, False])
def test_no_mask_is_sent_twice_after(tmp_path: Path, rollback: str, close: bool) -> None:
    folder, backup = tmp_path / "bank", tmp_path / "backup"
    first = _bank(_folder(folder))
    first.reserve({0: 150, 1: 150})
    sent = _rows(first.take(0, 5)) + _rows(first.take(1, 5))
    shutil.copytree(folder, backup)  # in mid-session, with all its runs
    sent += _rows(first.take(0, 70)) + _rows(first.take(1, 70))
    first.close() if close else os.close(first._storage._lock)  # type: ignore[attr-defined]
    for _ in range(3):
        ROLLBACKS[rollback](folder, backup)
        sent += _used(folder, 5, 70, close=close)
    assert len(sent) == 4 * 2 * 75
    assert len(set(sent)) == len(sent)


def test_banks_of_one_seed_share_no_mask(tmp_path: Path) -> None:
    """In memory, in two folders, in a folder and a copy of it that are open at once."""
    banks = [_bank(), _bank(), _bank(_folder(tmp_path / "one")), _bank(_folder(tmp_path / "two"))]
    banks[2].reserve({0: 100, 1: 100})
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    banks.append(_bank(_folder(tmp_path / "copy")))
    sent = [row for bank in banks for product in (0, 1) for row in _rows(bank.take(product, 100))]
    assert len(set(sent)) == len(sent) == 5 * 200


def test_what_an_earlier_session_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "run-0-0.npy").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    bank = _bank(_folder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    bank.take(0, 3)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    bank.close()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def _session(folder: Path, log: Path, steps: int, abort: bool) -> None:
    """A session that notes every mask and is killed in the middle."""
    bank = _bank(_folder(folder))
    bank.reserve({0: 150, 1: 150})
    with log.open("a") as file:
        for step in range(steps):
            for product in (0, 1):
                for row in _rows(bank.take(product, 1 + step % 3)):
                    print(row.hex(), file=file, flush=True)
    if abort:
        bank.abort("the device lied")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("abort", [False, True])
def test_a_killed_session_never_gives_a_mask_twice(tmp_path: Path, abort: bool) -> None:
    """Three sessions on one folder, each killed in the middle, with or without an abort before."""
    folder, log = tmp_path / "bank", tmp_path / "masks"
    for steps in (3, 40, 9):
        process = fork_server().Process(target=_session, args=(folder, log, steps, abort))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    sent = log.read_text().splitlines() + [row.hex() for row in _used(folder, 100)]
    assert len(sent) > 300
    assert len(sent) == len(set(sent))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    bank = _bank(_folder(tmp_path))
    bank.reserve({0: 4, 1: 4})
    with pytest.raises(ConfigError, match="another session uses it") as caught:
        _folder(tmp_path)
    assert "\n" not in str(caught.value)
    assert bank.take(0, 4).use == 0
    bank.close()
    _folder(tmp_path).close()


def test_a_changed_run_is_noticed_again_and_again(tmp_path: Path) -> None:
    bank = _bank(_folder(tmp_path))
    bank.reserve({0: 300, 1: 300})
    path = tmp_path / "run-0-256.npy"
    there = path.read_bytes()[-5]
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(bytes([there ^ 0xFF]))  # masks are random: one byte in 256 is already what a fixed one would be
    assert bank.take(0, 200).use == 0
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"run-0-256\.npy was changed; deploy again"):
            bank.take(0, 40 + 30)
    assert bank.take(1, 300).use == 0


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("read", [False, True])
def test_a_run_that_was_cut_is_noticed_as_well(tmp_path: Path, size: int, read: bool) -> None:
    """As a backup does that is copied over a live session: read, the mapping would end the process."""
    bank = _bank(_folder(tmp_path))
    bank.reserve({0: 200, 1: 200})
    if read:
        bank.take(0, 5)
    os.truncate(tmp_path / "run-0-0.npy", size)
    with pytest.raises(ConfigError, match=r"run-0-0\.npy was cut; deploy again"):
        bank.take(0, 5)
    (tmp_path / "run-1-0.npy").unlink()
    assert bank.take(1, 200).use == 0


def test_a_disk_too_small_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = _bank(_folder(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**3))
    with pytest.raises(ConfigError, match="do not fit") as caught:
        bank.reserve({0: 150, 1: 150})
    assert "\n" not in str(caught.value)
    assert bank.offline.rows == 0


def test_only_its_owner_reads_a_folder(tmp_path: Path) -> None:
    _folder(tmp_path / "bank")
    assert (tmp_path / "bank").stat().st_mode & 0o077 == 0


def test_nothing_of_a_mask_is_printed() -> None:
    bank = _bank()
    masks = bank.take(0, 2)
    assert "tensor" not in repr(masks)
    assert KEY.hex() not in repr(bank) + repr(masks)
