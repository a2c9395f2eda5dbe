"""A cell is run by one run at a time; who died, or whose time is up, keeps nobody waiting."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psutil
import pytest
from made_records import make_cell, make_record

from smd_research.core.errors import RecordError
from smd_research.records.lease import Lease, Leases
from smd_research.records.store import Store

CELL = make_cell()


def _file(results: Path) -> Path:
    return results / "claims" / f"{CELL.readable}-{CELL.id}.json"


def _edit(results: Path, **values: object) -> None:
    path = _file(results)
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_cell_has_one_owner(tmp_path: Path) -> None:
    mine, yours = Leases(tmp_path), Leases(tmp_path)
    lease = mine.claim(CELL)
    assert lease is not None
    assert yours.claim(CELL) is None
    assert yours.claim(make_cell(seed=1)) is not None
    mine.release(CELL, lease)
    assert yours.claim(CELL) is not None


def test_a_lease_names_no_one_and_says_when_it_ends(tmp_path: Path) -> None:
    now = 1e9
    lease = Leases(tmp_path, seconds=60, clock=lambda: now).claim(CELL)
    assert lease is not None
    document = json.loads(_file(tmp_path).read_text())
    assert document["pid"] == os.getpid()
    assert document["expires"] == now + 60
    assert os.uname().nodename not in _file(tmp_path).read_text()


def test_an_expired_lease_is_taken_over_and_not_taken_back(tmp_path: Path) -> None:
    now = [1e9]
    slow, quick = (Leases(tmp_path, seconds=60, clock=lambda: now[0]) for _ in range(2))
    old = slow.claim(CELL)
    now[0] += 59
    assert old is not None
    assert slow.renew(CELL, old)
    now[0] += 59
    assert quick.claim(CELL) is None
    now[0] += 2
    new = quick.claim(CELL)
    assert new is not None
    assert not slow.renew(CELL, old)
    slow.release(CELL, old)
    assert slow.claim(CELL) is None
    quick.release(CELL, new)
    assert not _file(tmp_path).exists()


DEAD: dict[str, Callable[[Path], None]] = {
    "a dead process": lambda results: _edit(results, pid=_dead()),
    "a later process of its number": lambda results: _edit(results, started=1.0),
    "an end that never comes": lambda results: _edit(results, expires=1e300),
    "half a file": lambda results: _file(results).write_text('{"machine": "'),
    "no claim": lambda results: _file(results).write_text("[]"),
    "no number": lambda results: _edit(results, pid="me"),
    "a number that no process has": lambda results: _edit(results, pid=-5),
    "a number that is too large": lambda results: _edit(results, pid=10**30),
    "nested without end": lambda results: _file(results).write_text("[" * 100_000),
    "other bytes": lambda results: _file(results).write_bytes(b"\xff\xfe"),
    "a day of clock skew": lambda results: _edit(results, machine="another", expires=time.time() + 86_400),
    "no end": lambda results: _edit(results, expires=float("nan")),
}


def _dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("kind", DEAD)
def test_nobody_waits_for(tmp_path: Path, kind: str) -> None:
    leases = Leases(tmp_path)
    assert leases.claim(CELL) is not None
    DEAD[kind](tmp_path)
    lease = leases.claim(CELL)
    assert lease is not None
    (tmp_path / "claims" / f".{_file(tmp_path).name}.0123").touch()  # of an owner who was killed while it renewed
    leases.release(CELL, lease)
    assert [path.name for path in (tmp_path / "claims").iterdir()] == [".lock"]


def test_a_killed_process_whose_parent_did_not_ask_for_it_has_no_cell(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert leases.claim(CELL) is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        _edit(tmp_path, pid=child.pid, started=psutil.Process(child.pid).create_time())
        assert leases.claim(CELL) is None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert leases.claim(CELL) is not None


def test_a_process_of_another_machine_is_judged_by_its_end_alone(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.claim(CELL)
    _edit(tmp_path, machine="another", pid=_dead())
    assert leases.claim(CELL) is None
    _edit(tmp_path, expires=time.time() - 1)
    assert leases.claim(CELL) is not None


def test_clocks_of_machines_need_not_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Leases(tmp_path), Leases(tmp_path)
    lease = there.claim(CELL)
    assert lease is not None
    _edit(tmp_path, machine="another")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is decades ahead
    assert here.claim(CELL) is None
    assert here.holder(CELL) is not None
    assert not here.holder(CELL).here
    assert there.renew(CELL, lease)
    assert here.claim(CELL) is None


def test_machines_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases(tmp_path)
    lease = leases.claim(CELL)
    assert lease is not None
    assert lease.here
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: "x" if path.name == "boot_id" else read(path, *a, **k))
    assert not lease.here


@pytest.mark.parametrize("lacking", ["locks", "links"])
def test_a_file_system_that_lacks_something_still_has_claims(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(*{"locks": (fcntl, "flock", no), "links": (Path, "hardlink_to", no)}[lacking])
    mine, yours = Leases(tmp_path), Leases(tmp_path)
    lease = mine.claim(CELL)
    assert lease is not None
    assert yours.claim(CELL) is None
    if lacking == "locks":  # both saw no claim: the name goes to one
        monkeypatch.setattr(yours, "_read", lambda _: None)
        monkeypatch.setattr(Path, "exists", lambda path: False)
        assert yours.claim(CELL) is None
    monkeypatch.undo()
    mine.release(CELL, lease)
    assert [path.name for path in (tmp_path / "claims").iterdir()] == [".lock"]


def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path) -> None:
    leases, other = Leases(tmp_path, seconds=0.9), Leases(tmp_path, seconds=0.9)
    with leases.held(CELL) as waited:
        assert not waited
        first = json.loads(_file(tmp_path).read_text())["expires"]
        deadline = time.monotonic() + 30
        while json.loads(_file(tmp_path).read_text())["expires"] < first + 0.9:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert other.claim(CELL) is None
    assert [path.name for path in (tmp_path / "claims").iterdir()] == [".lock"]


def test_a_lease_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Leases(tmp_path).held(CELL):
        raise KeyboardInterrupt
    assert not _file(tmp_path).exists()


def test_who_waits_is_told_for_whom_once(tmp_path: Path) -> None:
    leases, told = Leases(tmp_path), list[Lease | None]()
    lease = leases.claim(CELL)
    assert lease is not None
    threading.Timer(1.2, leases.release, (CELL, lease)).start()
    with leases.held(CELL, told.append) as waited:
        assert waited
    assert told == [lease]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    occupied = tmp_path / "results"
    occupied.write_text("a file where a folder should be")
    with pytest.raises(RecordError, match=r"cannot write .*results_dir=") as caught:
        Leases(occupied).claim(CELL)
    assert "\n" not in str(caught.value)


def _sweep(results: Path, log: Path, ready: Barrier) -> None:
    """Runs four cells as ``smd run -m`` does: looked up, claimed, looked up again, written."""
    ready.wait()
    store = Store(results)
    for seed in range(4):
        cell = make_cell(seed=seed)
        if store.lookup(cell):
            continue
        with Leases(results).held(cell):
            if store.lookup(cell):
                continue
            with log.open("a") as file:
                print(seed, file=file)
            time.sleep(0.1)
            store.write(make_record(cell))


def test_identical_sweeps_share_their_cells(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(3)
    log = tmp_path / "runs"
    sweeps = [context.Process(target=_sweep, args=(tmp_path, log, ready)) for _ in range(3)]
    for one in sweeps:
        one.start()
    for one in sweeps:
        one.join()
    assert [one.exitcode for one in sweeps] == [0, 0, 0]
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3"]
    assert len(Store(tmp_path).paths()) == 4


def _hold_for_ever(results: Path, ready: Barrier) -> None:
    with Leases(results).held(CELL):
        ready.wait()
        time.sleep(600)


def test_a_killed_run_keeps_nobody_waiting(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(2)
    process = context.Process(target=_hold_for_ever, args=(tmp_path, ready))
    process.start()
    ready.wait()
    assert Leases(tmp_path).claim(CELL) is None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert Leases(tmp_path).claim(CELL) is not None
