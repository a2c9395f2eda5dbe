"""Every mask is used once: in order, across aborts, restarts and crashes; what is stored really cancels."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smd_research.boundary.process import fork_server
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.defenses.slip.bank import BLOCK, LEASE, MaskBank, MasksExhaustedError
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


def _folder(path: Path, owner: str = "me") -> FolderStorage:
    return FolderStorage(path, _weights(), owner, torch.device("cpu"))


@given(takes=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 300)), max_size=8), ahead=st.integers(0, 400))
@settings(deadline=None, max_examples=25)
def test_masks_cancel_and_never_repeat(takes: list[tuple[int, int]], ahead: int) -> None:
    bank, weights, seen = _bank(), _weights(), set()
    bank.reserve({0: ahead, 1: ahead})
    for product, rows in takes:
        masks = bank.take(product, rows)
        for row, use in zip(masks.r, range(masks.use, masks.use + rows), strict=True):
            width = weights[product].shape[1]
            block = MaskStream(KEY).uniform(use // BLOCK, product, BLOCK * width, WIDE.prime)
            assert torch.equal(row, block.view(BLOCK, width)[use % BLOCK])
        exact = masks.r.numpy().astype(object) @ weights[product].numpy().astype(object).T % WIDE.prime
        assert (exact == masks.c.numpy()).all()
        used = {(product, masks.use + row) for row in range(rows)}
        assert not used & seen
        seen |= used


def test_offline_work_is_counted_apart() -> None:
    bank = _bank()
    bank.reserve({0: 10, 1: 4})
    assert bank.offline.rows == 14
    assert bank.offline.flops == 2 * (10 * 35 + 4 * 27)
    assert bank.offline.seconds > 0
    assert bank.nbytes == 8 * (10 * 7 + 4 * 3)
    bank.take(0, 10)
    assert bank.offline.rows == 14


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


def test_a_folder_goes_on_after_the_last_row_used(tmp_path: Path) -> None:
    bank = _bank(_folder(tmp_path))
    bank.reserve({0: 20, 1: 20})
    first = bank.take(0, 5)
    bank.close()
    again = _bank(_folder(tmp_path))
    assert again.left(0) == 15
    assert again.left(1) == 20
    second = again.take(0, 5)
    assert (first.use, second.use) == (0, 5)
    assert again.offline.rows == 0
    exact = second.r.numpy().astype(object) @ _weights()[0].numpy().astype(object).T % WIDE.prime
    assert (exact == second.c.numpy()).all()


def test_a_folder_remembers_an_abort(tmp_path: Path) -> None:
    bank = _bank(_folder(tmp_path))
    bank.reserve({0: 20, 1: 30})
    bank.take(0, 1)
    bank.abort("the device lied")
    bank.close()
    assert not list(tmp_path.glob("*.npy"))
    again = _bank(_folder(tmp_path))
    assert (again.take(0, 1).use, again.take(1, 1).use) == (20, 30)


def _session(folder: Path, log: Path, steps: int, abort: bool) -> None:
    """A session that notes every use and is killed in the middle."""
    bank = _bank(_folder(folder))
    bank.reserve({0: 150, 1: 150})
    with log.open("a") as file:
        for step in range(steps):
            for product in (0, 1):
                masks = bank.take(product, 1 + step % 3)
                for row in range(len(masks.r)):
                    print(product, masks.use + row, file=file, flush=True)
    if abort:
        bank.abort("the device lied")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("abort", [False, True])
def test_a_killed_session_never_gives_a_mask_twice(tmp_path: Path, abort: bool) -> None:
    """Three sessions on one folder, each killed in the middle, with or without an abort before."""
    folder, log = tmp_path / "bank", tmp_path / "uses"
    for steps in (3, 40, 9):
        process = fork_server().Process(target=_session, args=(folder, log, steps, abort))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    seen = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert len(seen) > 100
    assert len(seen) == len(set(seen))
    bank = _bank(_folder(folder))
    for product in (0, 1):
        last = max(use for number, use in seen if number == product)
        assert last < bank.take(product, 1).use <= last + 150 + LEASE


def test_a_use_is_on_the_disk_before_its_mask_is_given_out(tmp_path: Path) -> None:
    storage = _folder(tmp_path)
    written: list[dict[int, int]] = []
    burn = storage.burn
    storage.burn = lambda burnt: (written.append(dict(burnt)), burn(burnt))  # type: ignore[method-assign,assignment]
    bank = _bank(storage)
    bank.reserve({0: 300, 1: 300})
    for step in range(100):
        masks = bank.take(step % 2, 2)
        assert written[-1][step % 2] >= masks.use + 2
    assert len(written) < 10, "one write serves many rows"


def test_a_folder_is_refused_to_others(tmp_path: Path) -> None:
    bank = _bank(_folder(tmp_path))
    bank.reserve({0: 4, 1: 4})
    with pytest.raises(ConfigError, match="another session uses it"):
        _folder(tmp_path)
    bank.close()
    with pytest.raises(ConfigError, match="another key, model or split"):
        _folder(tmp_path, owner="other")
    (tmp_path / "state.json").unlink()
    with pytest.raises(ConfigError, match="state is missing") as caught:
        _folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_half_a_write_is_no_write(tmp_path: Path) -> None:
    bank = _bank(_folder(tmp_path))
    bank.take(0, 3)
    bank.close()
    (tmp_path / "state.json.tmp").write_bytes(b'{"owner"')
    (tmp_path / "0-900.npy.tmp").write_bytes(b"half")
    assert _bank(_folder(tmp_path)).take(0, 1).use == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_of_a_mask_is_printed() -> None:
    bank = _bank()
    masks = bank.take(0, 2)
    assert "tensor" not in repr(masks)
    assert KEY.hex() not in repr(bank) + repr(masks)
