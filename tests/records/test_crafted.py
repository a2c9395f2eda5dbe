"""Forty records with something odd: whoever reads the folder finishes, and each bad one is named, once."""

import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_records import make_cell, make_record

from experiments.commands import table
from smd_research.records import CorruptRecordWarning, Item, Record, Store, items_frame, load, read, read_items
from smd_research.records.store import Status, printable
from smd_research.reports.tables.exactness import exactness
from smd_research.reports.tables.leak_matrix import leak_matrix
from smd_research.reports.tables.secret_types import secrets_by_type
from smd_research.reports.tables.summary import summary

Documents = dict[str, Any]


def _sealed(folder: Path, **files: bytes) -> None:
    """Change files of a record and make its checksums right: only what they say is wrong then."""
    import hashlib

    environment = json.loads((folder / "environment.json").read_text())
    for key, content in files.items():
        name = {"metrics": "metrics.json", "items": "items.parquet"}[key]
        (folder / name).write_bytes(content)
        environment["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "environment.json").write_text(json.dumps(environment))


def _metrics(change: Callable[[Documents], object]) -> Callable[[Path], None]:
    def craft(folder: Path) -> None:
        document = json.loads((folder / "metrics.json").read_text())
        change(document)
        _sealed(folder, metrics=json.dumps(document).encode())

    return craft


def _cell(**values: Any) -> Callable[[Path], None]:
    return _metrics(lambda document: document["cell"].update(values))


def _estimate(**values: Any) -> Callable[[Path], None]:
    return _metrics(lambda document: document["metrics"]["token_accuracy"].update(values))


def _text(old: str, new: str) -> Callable[[Path], None]:
    def craft(folder: Path) -> None:
        content = (folder / "metrics.json").read_text()
        assert old in content
        _sealed(folder, metrics=content.replace(old, new, 1).encode("utf-8", "surrogatepass"))

    return craft


def _environment(**values: Any) -> Callable[[Path], None]:
    def craft(folder: Path) -> None:
        path = folder / "environment.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return craft


def _items(**columns: Any) -> Callable[[Path], None]:
    """Replace columns of the per-prompt results; None leaves one out."""

    def craft(folder: Path) -> None:
        table = pq.read_table(folder / "items.parquet").replace_schema_metadata(None)
        for name, values in columns.items():
            if name in table.column_names:
                table = table.drop_columns([name])
            if values is not None:
                table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        _sealed(folder, items=buffer.getvalue())

    return craft


def _twice(folder: Path) -> None:
    """A copy of a record beside it would count its cell twice."""
    other = folder.with_name(f"copy of {folder.name}")
    folder.rename(other)


def _fifo(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")


def _cut_pages(folder: Path) -> None:
    content = bytearray((folder / "items.parquet").read_bytes())
    content[8:200] = b"\xff" * 192
    _sealed(folder, items=bytes(content))


SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("type", pa.string())])
BAD: dict[str, Callable[[Path], object]] = {
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "a pipe for a file": _fifo,
    "a folder for a file": lambda folder: ((folder / "config.yaml").unlink(), (folder / "config.yaml").mkdir()),
    "a copy beside it": _twice,
    "a name with a line break": lambda folder: folder.rename(folder.with_name("odd\n\x1b[31mname")),
    "a name of lone bytes": lambda folder: folder.rename(folder.with_name("odd\udcffname")),
    "utf-16": lambda folder: _sealed(folder, metrics=(folder / "metrics.json").read_text().encode("utf-16")),
    "a list": lambda folder: _sealed(folder, metrics=b"[]"),
    "deep": lambda folder: _sealed(folder, metrics=b"[" * 100_000),
    "a key twice": _text('"status": "ok"', '"status": "failed", "status": "ok"'),
    "NaN": _text('"mean": 0.5', '"mean": NaN'),
    "an endless number": _text('"mean": 0.5', '"mean": 1e999'),
    "a number of 400 digits": _text('"steps": 32', f'"steps": {10**400}'),
    "half a character": _text('"reason": ""', '"reason": "\\ud800"'),
    "a status nobody writes": _metrics(lambda document: document.update(status="missing")),
    "an unknown status": _metrics(lambda document: document.update(status=["ok"])),
    "a reason that is a number": _metrics(lambda document: document.update(reason=3)),
    "metrics in a list": _metrics(lambda document: document.update(metrics=[])),
    "an estimate that is a number": _metrics(lambda document: document["metrics"].update(kl=0.5)),
    "a mean in words": _estimate(mean="0.5"),
    "a mean that is true": _estimate(mean=True),
    "an interval backwards": _estimate(low=0.9, high=0.1),
    "half a prompt": _estimate(n=1.5),
    "minus one prompt": _estimate(n=-1),
    "no prompt count": _metrics(lambda document: document["metrics"]["kl"].pop("n")),
    "a cell in a list": _metrics(lambda document: document.update(cell=[])),
    "a seed in words": _cell(seed="zero"),
    "prompts in a list": _cell(n_prompts=[2]),
    "an attack in words": _cell(attack="prior"),
    "no defense": _metrics(lambda document: document["cell"].pop("defense")),
    "a task in words": _cell(task="notes"),
    "markup for a name": _cell(defense={"name": "[/b]"}),
    "versions in words": _cell(versions={"attack": "two"}),
    "another seed": _cell(seed=9999),
    "another id": _cell(id="0" * 16),
    "an environment in a list": lambda folder: (folder / "environment.json").write_text("[]"),
    "no checksums": _environment(files=[]),
    "parameters in a list": _environment(parameters=[1]),
    "no Parquet": lambda folder: _sealed(folder, items=b"PAR1"),
    "no names of prompts": _items(prompt_id=None),
    "numbers for names of prompts": _items(prompt_id=[1, 2]),
    "a metric in words": _items(token_accuracy=["good", "bad"]),
    "spans that are numbers": _items(spans=[[1], [2]]),
    "texts that are numbers": _items(truth_tokens=[[1, 2]] * 2, truth_ids=None, guess_ids=None),
    "half Parquet": _cut_pages,
    "a name missing": _items(prompt_id=["p0", None]),
    "guesses of another length": _items(truth_ids=[[1, 2, 3, 4]] * 2, guess_ids=[[1], [2]]),
    "ids with gaps": _items(truth_ids=[[1, 2, None, 4]] * 2),
}
ODD_BUT_READ: dict[str, Callable[[Path], object]] = {
    "spans beyond the prompt": _items(
        spans=pa.array(
            [
                [{"start": -5, "end": 1, "type": "name"}, {"start": 3, "end": 10**12, "type": None}, None],
                [{"start": 3, "end": 2, "type": "name"}, {"start": None, "end": 2, "type": "x"}],
            ],
            pa.list_(SPAN),
        )
    ),
    "no spans": _items(spans=None),
    "markup in a token": _items(truth_tokens=[["[/b]", "<script>", "\x1b[31m", "\x00"]] * 2),
    "huge values": _estimate(mean=1e308, low=-1e308, high=1e308),
    "no values": _estimate(mean=None, low=None, high=None, n=0),
}


@pytest.fixture
def crafted(tmp_path: Path) -> tuple[Path, list[str]]:
    """A results folder of good, odd and bad records, and the names of the bad ones."""
    store, bad = Store(tmp_path), []
    store.write(make_record())
    for seed, craft in enumerate([*ODD_BUT_READ.values(), *BAD.values()], start=1):
        written = store.write(make_record(make_cell(seed=seed))).path
        assert written is not None
        before = set(store.cells.iterdir())
        craft(written)
        found = (set(store.cells.iterdir()) - before) or {written}
        bad.extend(path.name for path in found if seed > len(ODD_BUT_READ))
    return tmp_path, bad


def test_every_reader_finishes_and_names_each_bad_record_once(crafted: tuple[Path, list[str]]) -> None:
    results, bad = crafted
    assert len(bad) == len(BAD) >= 40
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = load(results)
    assert set(frame["seed"]) == {*range(len(ODD_BUT_READ) + 1)}
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == len(bad)
    assert all(issubclass(warning.category, CorruptRecordWarning) for warning in caught)
    for message in messages:
        assert message.isprintable(), "one line, no control character"
        assert len(message) < 700
        assert message.endswith("rerun=always")
    for name in bad:
        assert sum(f"/cells/{printable(name)}:" in message for message in messages) == 1

    assert summary(frame).rows
    assert leak_matrix(frame, "token_accuracy").rows
    assert len(exactness(frame).rows) == len(ODD_BUT_READ) + 1
    secrets_by_type(frame)


def test_a_report_of_the_folder_is_made_and_says_each_in_one_line(crafted: tuple[Path, list[str]]) -> None:
    results, bad = crafted
    for words in ([], ["cell=smd"]):
        command = [sys.executable, "-m", "experiments", "report", f"results_dir={results}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("warning: corrupt record ")]
        assert len(said) == len(set(said)) == len(bad)
        assert len(done.stderr.splitlines()) == len(said)
        assert "<script>" not in (results / "report.html").read_text(encoding="utf-8")


def test_a_table_beside_odd_records_is_made(
    crafted: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = crafted
    words = ["table=attacks_vs_defenses", "rerun=never", f"results_dir={results}", "n_prompts=2"]
    assert table.main(words) == 0
    assert list((results / "tables").iterdir())
    assert "error" not in capsys.readouterr().err


def test_spans_are_clamped(tmp_path: Path) -> None:
    written = Store(tmp_path).write(make_record()).path
    assert written is not None
    ODD_BUT_READ["spans beyond the prompt"](written)
    first, second = read_items(read(written).items)
    assert [(s.start, s.end, s.type) for s in first.spans] == [(0, 1, "name"), (3, 4, "secret")]
    assert not second.spans


def test_items_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    items = items_frame(
        [Item("p0", {"kl": 0.5, "ok": True}, ["a", "b"], ["a", None]), Item("p1", {"kl": float("nan")})]
    )
    written = Store(tmp_path).write(Record(Status.OK, make_cell(), "", {}, items)).path
    assert written is not None
    pd.testing.assert_frame_equal(read(written).items, pd.read_parquet(written / "items.parquet"))


def test_a_good_record_is_still_good(tmp_path: Path) -> None:
    written = Store(tmp_path).write(make_record()).path
    assert written is not None
    shutil.copytree(tmp_path / "cells", tmp_path / "elsewhere" / "cells")
    assert len(load(tmp_path / "elsewhere")) == len(load(tmp_path)) == 2
