"""Benches: both sides interleaved, medians, one file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import table
from experiments.bench import measure, run
from experiments.benches.case import Case, Settings


def test_sides_alternate_and_medians_are_taken() -> None:
    turns: list[str] = []
    slow = iter([99.0, 4.0, 6.0, 5.0])
    fast = iter([99.0, 2.0, 2.0, 50.0])

    def value() -> float:
        turns.append("a")
        return next(slow)

    def baseline() -> float:
        turns.append("b")
        return next(fast)

    row = measure(Case("m a/b", value, baseline, "ms"), repeats=3)
    assert turns == ["a", "b", "a", "b", "b", "a", "a", "b"], "a warm-up, then each side first in turn"
    assert row == {"case": "m a/b", "value": 5.0, "baseline": 2.0, "ratio": 2.5, "unit": "ms", "n": 3}


def test_a_bench_writes_what_it_has_after_each_case_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "toy.json"
    closed: list[str] = []

    def cases() -> Iterator[Case]:
        for name in ("m one/two", "m three/four"):
            try:
                yield Case(name, lambda: 1.0, lambda: 2.0, "s", repeats=2)
            finally:
                closed.append(name)
            assert [row["case"] for row in json.loads(path.read_text())][-1] == name

    rows = run(cases(), Settings(repeats=5), "", path)
    assert json.loads(path.read_text()) == rows
    assert closed == ["m one/two", "m three/four"]
    assert [row["n"] for row in rows] == [2, 2]
    assert set(rows[0]) == {"case", "value", "baseline", "ratio", "unit", "n"}


def test_only_some_cases_can_be_run(tmp_path: Path) -> None:
    wanted = [Case("a x/y", lambda: 1.0, lambda: 1.0, "s"), Case("b x/y", lambda: 1.0, lambda: 1.0, "s")]
    rows = run(wanted, Settings(repeats=1), "b x", tmp_path / "bench.json")
    assert [row["case"] for row in rows] == ["b x/y"]


def test_a_timing_table_reads_bench_files_and_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table=timing", f"results_dir={tmp_path}"]
    assert table.main(words) == 1
    assert "run `smd bench bench=smd_decode` first" in capsys.readouterr().err
    folder = tmp_path / "bench"
    folder.mkdir()
    for name in ("smd_decode", "transport_roundtrip", "vocab_matching"):
        row = {"case": f"tiny {name} a/b", "value": 2.0, "baseline": 1.0, "ratio": 2.0, "unit": "ms", "n": 3}
        (folder / f"{name}.json").write_text(json.dumps([row]))
    assert table.main(words) == 0
    assert "tiny vocab_matching a/b" in (tmp_path / "tables" / "timing.md").read_text()
