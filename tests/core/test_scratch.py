import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from smd_research.core import scratch
from smd_research.core.scratch import Scratch


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_YOUNG_S", -1.0)
    return tmp_path


def test_a_folder_goes_when_it_is_removed_or_forgotten(temporary: Path) -> None:
    one, two = Scratch(), Scratch()
    (one.path / "a").write_text("a")
    assert len(list(temporary.iterdir())) == 2
    one.remove()
    one.remove()
    assert list(temporary.iterdir()) == [two.path]
    del two
    assert not list(temporary.iterdir())


def _killed(here: Connection) -> None:
    made = Scratch()
    (made.path / "a").write_text("a")
    here.send(made.path)
    time.sleep(600)


def test_what_a_killed_process_left_goes_with_the_next(temporary: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_killed, args=(there,))
    process.start()
    left = here.recv()
    Scratch().remove()
    assert left.is_dir(), "its process lives"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    Scratch().remove()
    assert not left.exists()


def test_nothing_else_is_touched(temporary: Path) -> None:
    kept = [temporary / name for name in ("smd-results", "smd-scratch-my_own_results", "other")]
    for folder in kept:
        folder.mkdir()
    (temporary / "smd-scratch-12345678").symlink_to(kept[0])
    (temporary / "smd-scratch-abcdefgh").write_text("a file")
    before = sorted(temporary.iterdir())
    Scratch().remove()
    assert sorted(temporary.iterdir()) == before


def test_a_fork_that_ends_takes_nothing_with_it(temporary: Path) -> None:
    made = Scratch()
    child = os.fork()
    if not child:
        made.remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert made.path.is_dir()


def test_a_journal_goes_with_its_command_and_not_with_a_job(temporary: Path) -> None:
    from experiments.commands.sweep import Journal

    journal = Journal.new()
    job = pickle.loads(pickle.dumps(journal))
    assert job.path == journal.path
    del job
    assert journal.path.is_dir()
    assert journal.close() == []
    assert not list(temporary.iterdir())
    refused = Journal.new()
    del refused
    assert not list(temporary.iterdir())
