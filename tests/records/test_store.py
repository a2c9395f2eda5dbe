import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smd_research.core.cell import Cell
from smd_research.core.errors import ConfigError, RecordError
from smd_research.metrics import Estimate
from smd_research.records import Item, Record, Status, Store, decide, items_frame, read, read_items
from smd_research.records.folders import clear_leftovers, replace_folder
from smd_research.records.machine import machine

FILES = {"config.yaml", "metrics.json", "items.parquet", "environment.json"}
RecordMaker = Callable[..., Record]
CellMaker = Callable[..., Cell]


def test_an_older_record_that_holds_an_uncounted_null_is_the_same_cell(
    tmp_path: Path, record_with: RecordMaker, cell_with: CellMaker
) -> None:
    counted = {"name": "shaking", "secret": None}
    store = Store(tmp_path)
    written = store.write(record_with(cell_with(defense=counted)))
    assert written.path is not None
    for name in ("metrics.json", "environment.json"):
        document = json.loads((written.path / name).read_text())
        if name == "metrics.json":
            document["cell"]["defense"] |= {"fresh_epsilon": None, "precision": None}
        else:  # as they were written
            content = (written.path / "metrics.json").read_bytes()
            document["files"]["metrics.json"] = hashlib.sha256(content).hexdigest()
        (written.path / name).write_text(json.dumps(document))
    read_again = store.lookup(cell_with(defense=counted))
    assert read_again is not None
    assert read_again.cell == written.cell


def test_layout_and_schema(tmp_path: Path, record_with: RecordMaker) -> None:
    record = Store(tmp_path).write(record_with())
    cell = record.cell
    assert record.path == tmp_path / "cells" / f"smd-partial_attention_inversion-embedded-synthetic-s0-{cell.id}"
    assert {path.name for path in record.path.iterdir()} == FILES
    document = json.loads((record.path / "metrics.json").read_text())
    assert set(document) == {"status", "reason", "scored", "texts", "cell", "metrics"}
    assert document["metrics"]["token_accuracy"] == {"mean": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    assert document["metrics"]["kl"] == {"mean": 0.0, "low": None, "high": None, "n": 2}
    assert document["cell"]["id"] == cell.id
    assert Cell.from_dict(yaml.safe_load((record.path / "config.yaml").read_text())) == cell


def test_what_is_written_is_read(tmp_path: Path, record_with: RecordMaker, cell_with: CellMaker) -> None:
    store = Store(tmp_path)
    written = store.write(record_with())
    found = store.lookup(written.cell)
    assert found is not None
    assert (found.status, found.cell, found.environment) == (Status.OK, written.cell, written.environment)
    assert found.metrics["token_accuracy"] == written.metrics["token_accuracy"]
    assert np.isnan(found.metrics["kl"].low)
    assert read_items(found.items) == read_items(written.items)
    assert read_items(found.items)[0].guess_tokens == ["the", " patient", " Bob", None]
    assert store.lookup(cell_with(seed=1)) is None


def test_the_interval_that_an_earlier_record_gives_a_known_level_is_left_out(
    tmp_path: Path, record_with: RecordMaker
) -> None:
    metrics = {"stream_chance": Estimate(0.25, 0.1, 0.4, 2), "stream_found": Estimate(0.5, 0.1, 0.9, 2)}
    Store(tmp_path).write(replace(record_with(), metrics=metrics))
    read = Store(tmp_path).lookup(record_with().cell)
    assert read is not None
    assert np.isnan([read.metrics["stream_chance"].low, read.metrics["stream_chance"].high]).all()
    assert read.metrics["stream_found"] == metrics["stream_found"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    means=st.dictionaries(st.text(min_size=1, max_size=9), st.floats(), max_size=4),
    tokens=st.lists(st.lists(st.text(max_size=4), max_size=3), max_size=3),
    reason=st.text(max_size=20),
)
def test_round_trip_of_any_record(
    tmp_path: Path, record_with: RecordMaker, means: dict[str, float], tokens: list[list[str]], reason: str
) -> None:
    items = items_frame(Item(f"p{i}", {}, texts, texts) for i, texts in enumerate(tokens))
    metrics = {name: Estimate(mean, n=1) for name, mean in means.items()}
    base = record_with()
    written = Store(tmp_path).write(Record(Status.OK, base.cell, reason, metrics, items))
    assert written.path is not None
    found = read(written.path)
    assert found.reason == reason
    for name, mean in means.items():
        assert found.metrics[name].mean == mean or (not np.isfinite(mean) and np.isnan(found.metrics[name].mean))
    assert [list(item.truth_tokens) for item in read_items(found.items)] == tokens


def test_failed_and_not_applicable_cells_are_records(tmp_path: Path, record_with: RecordMaker) -> None:
    store = Store(tmp_path)
    record = store.write(record_with(status=Status.FAILED, reason="ProtocolError: the peer went away"))
    found = store.lookup(record.cell)
    assert found is not None
    assert (found.status, found.reason, dict(found.metrics)) == (Status.FAILED, record.reason, {})


def test_writing_again_replaces(tmp_path: Path, record_with: RecordMaker) -> None:
    store = Store(tmp_path)
    for accuracy in (0.1, 0.2):
        store.write(record_with(accuracy=accuracy))
    found = store.lookup(record_with().cell)
    assert found is not None
    assert found.metrics["token_accuracy"].mean == 0.2
    assert [path.name[0] for path in store.cells.iterdir()] == ["s"]


DAMAGES = [(name, damage) for name in sorted(FILES) for damage in ("missing", "empty", "cut", "changed")]
# The environment holds the checksums and has none itself; a changed letter in it moves no number.
DAMAGES.remove(("environment.json", "changed"))


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, record_with: RecordMaker, name: str, damage: str) -> None:
    store = Store(tmp_path)
    path = store.write(record_with()).path
    assert path is not None
    content = (path / name).read_bytes()
    if damage == "missing":
        (path / name).unlink()
    else:
        changed = {"empty": b"", "cut": content[: len(content) // 2], "changed": content.replace(b"o", b"0", 1)}[damage]
        (path / name).write_bytes(changed)
    with pytest.raises(RecordError) as caught:
        store.lookup(record_with().cell)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "rerun=always" in message


def test_a_record_of_another_cell_in_this_place_is_refused(
    tmp_path: Path, record_with: RecordMaker, cell_with: CellMaker
) -> None:
    store = Store(tmp_path)
    path = store.write(record_with()).path
    assert path is not None
    other = cell_with(seed=5)
    path.rename(store.folder(other))
    with pytest.raises(RecordError, match="another cell"):
        store.lookup(other)


def test_unwritable_results_are_one_line(tmp_path: Path, record_with: RecordMaker) -> None:
    occupied = tmp_path / "results"
    occupied.write_text("a file where a folder should be")
    for attempt in (Store(occupied).prepare, lambda: Store(occupied).write(record_with())):
        with pytest.raises(RecordError, match="cannot write") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_read_only_results_are_one_line(
    tmp_path: Path, record_with: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "open", "write_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    for attempt in (Store(tmp_path).prepare, lambda: Store(tmp_path).write(record_with())):
        with pytest.raises(RecordError, match=r"cannot write .*Read-only file system; .*results_dir="):
            attempt()


def test_a_full_disk_leaves_the_old_record(
    tmp_path: Path, record_with: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write(record_with(accuracy=0.1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smd_research.records.folders.os.fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        store.write(record_with(accuracy=0.2))
    monkeypatch.undo()
    found = store.lookup(record_with().cell)
    assert found is not None
    assert found.metrics["token_accuracy"].mean == 0.1
    assert len(list(store.cells.iterdir())) == 1


def test_a_full_disk_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smd_research.records.folders.os.fsync", full)
    with pytest.raises(RecordError, match=r"No space left on device; free space or .*results_dir="):
        Store(tmp_path).prepare()
    assert not list((tmp_path / "cells").iterdir())


WRITER = """
    import sys
    sys.path.insert(0, {tests!r})
    from made_records import make_record
    from smd_research.records import Store
    store, value = Store({results!r}), float(sys.argv[1])
    print("ready", flush=True)
    for turn in range(int(sys.argv[2])):
        store.write(make_record(accuracy=value))
"""


def writer(results: Path, value: float, turns: int) -> "subprocess.Popen[str]":
    code = textwrap.dedent(WRITER).format(tests=str(Path(__file__).parents[1]), results=str(results))
    command = [sys.executable, "-c", code, str(value), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_writing_one_cell_and_a_reader(tmp_path: Path, record_with: RecordMaker) -> None:
    store, cell = Store(tmp_path), record_with().cell
    store.write(record_with(accuracy=0.25))
    processes = [writer(tmp_path, value, 60) for value in (0.25, 0.75)]
    reads = 0
    while any(process.poll() is None for process in processes):
        found = store.lookup(cell)
        if found is not None:  # between two renames the place is empty for an instant, never half full
            reads += 1
            accuracy = found.metrics["token_accuracy"].mean
            assert accuracy in (0.25, 0.75)
            assert set(found.items["token_accuracy"]) == {accuracy}
    assert [process.wait() for process in processes] == [0, 0]
    assert reads > 0
    assert store.lookup(cell) is not None
    assert len(list(store.cells.iterdir())) == 1


def test_a_record_replaced_under_its_reader_is_read_again(
    tmp_path: Path, record_with: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from smd_research.records import store as module

    store, once = Store(tmp_path), module._read_once
    replaced: list[Record] = []
    folder = store.write(record_with(accuracy=0.25)).path
    assert folder is not None

    def overtaken(place: Path) -> Record:
        if len(replaced) < 5:
            replaced.append(store.write(record_with(accuracy=0.75)))
            raise module._corrupt(place, "cannot read metrics.json")
        return once(place)

    monkeypatch.setattr(module, "_read_once", overtaken)
    assert module.read(folder).metrics["token_accuracy"].mean == 0.75


@pytest.mark.slow
def test_a_record_that_stays_as_it_is_is_corrupt_at_once(
    tmp_path: Path, record_with: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one that is replaced meanwhile is worth waiting for: a folder of odd records is read without a pause."""
    path = Store(tmp_path).write(record_with()).path
    assert path is not None
    (path / "metrics.json").write_text("{")
    waits = list[float]()
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(RecordError):
        read(path)
    assert waits == []


def test_a_killed_writer_never_corrupts(tmp_path: Path, record_with: RecordMaker) -> None:
    store, cell = Store(tmp_path), record_with().cell
    store.write(record_with(accuracy=0.25))
    for turn in range(3):
        process = writer(tmp_path, 0.75, 10**6)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.013 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = store.lookup(cell)
        assert found is not None
        assert found.metrics["token_accuracy"].mean in (0.25, 0.75)
        store.prepare()
        assert [path.name for path in store.cells.iterdir()] == [store.folder(cell).name]


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leftover(kind: str, process: int, parent: Path, target: str = "cell") -> Path:
    folder = parent / f".{kind}~{machine()}~{process}~abcd~{target}"
    folder.mkdir()
    (folder / "a").write_text(kind)
    return folder


def test_clearing_removes_what_a_dead_writer_left(tmp_path: Path) -> None:
    leftover("tmp", dead_process(), tmp_path)
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_clearing_puts_back_what_was_only_moved_away(tmp_path: Path) -> None:
    leftover("old", dead_process(), tmp_path)
    clear_leftovers(tmp_path)
    assert [(path.name, (path / "a").read_text()) for path in tmp_path.iterdir()] == [("cell", "old")]


def test_clearing_never_overwrites_a_record(tmp_path: Path) -> None:
    replace_folder(tmp_path / "cell", {"a": b"new"})
    leftover("old", dead_process(), tmp_path)
    clear_leftovers(tmp_path)
    assert [(path.name, (path / "a").read_text()) for path in tmp_path.iterdir()] == [("cell", "new")]


def test_clearing_leaves_a_living_writer_alone(tmp_path: Path) -> None:
    mine = leftover("tmp", os.getpid(), tmp_path)
    clear_leftovers(tmp_path)
    assert mine.exists()


def test_clearing_leaves_alone_what_another_machine_of_the_same_name_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = leftover("tmp", dead_process(), tmp_path)  # no process here has its number
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: "x" if path.name == "boot_id" else read(path, *a, **k))
    clear_leftovers(tmp_path)
    assert theirs.exists()


@pytest.mark.parametrize(
    ("status", "rerun", "action"),
    [
        (None, "missing", "run"),
        (None, "failed", "run"),
        (None, "always", "run"),
        (None, "never", "skip"),
        (Status.OK, "missing", "reuse"),
        (Status.OK, "failed", "reuse"),
        (Status.OK, "always", "run"),
        (Status.OK, "never", "reuse"),
        (Status.FAILED, "missing", "reuse"),
        (Status.FAILED, "failed", "run"),
        (Status.FAILED, "always", "run"),
        (Status.FAILED, "never", "reuse"),
        (Status.NOT_APPLICABLE, "missing", "reuse"),
        (Status.NOT_APPLICABLE, "failed", "reuse"),
    ],
)
def test_rerun_policy(record_with: RecordMaker, status: Status | None, rerun: Any, action: str) -> None:
    assert decide(None if status is None else record_with(status=status), rerun) == action


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="missing, failed, always or never"):
        decide(None, "sometimes")  # type: ignore[arg-type]


def test_a_repr_never_shows_items(record_with: RecordMaker) -> None:
    assert "patient" not in repr(record_with())
    assert "patient" not in repr(read_items(record_with().items)[0])
