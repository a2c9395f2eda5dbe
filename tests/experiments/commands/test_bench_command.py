"""Benches: both sides interleaved, medians, one file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.benches.case import Case, Measured, Modes, Settings
from experiments.benches.measuring import measure
from experiments.commands import table
from experiments.commands.bench import main, run
from smd_research.records.bench import bench_file, read_bench


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

    (row,) = measure(Case("m a/b", value, baseline, "ms"), repeats=3)
    assert turns == ["a", "b", "a", "b", "b", "a", "a", "b"], "a warm-up, then each side first in turn"
    assert row == {
        "case": "m a/b", "value": 5.0, "value_low": 4.0, "value_high": 6.0, "baseline": 2.0, "baseline_low": 2.0,
        "baseline_high": 50.0, "ratio": 2.5, "ratio_low": 0.1, "ratio_high": 3.0, "unit": "ms", "n": 3, "labels": {},
        "extra": {},
    }  # fmt: skip


def test_several_modes_take_turns_and_each_stands_beside_the_first(tmp_path: Path) -> None:
    turns: list[str] = []

    def mode(name: str, seconds: float) -> Callable[[], Measured]:
        def once() -> Measured:
            turns.append(name)
            return Measured(seconds, {"merge_ms": seconds / 10, "bytes": 8})

        return once

    sides = {"none": mode("none", 1.0), "smd": mode("smd", 1.5), "full": mode("full", 4.0)}
    modes = Modes("m users=8", sides, "s", labels={"model": "m", "users": 8}, warmup=0)
    rows, _ = run([modes], Settings(repeats=3), tmp_path / "bench" / "users.json")
    assert turns == ["none", "smd", "full", "smd", "full", "none", "full", "none", "smd"]
    assert [row["ratio"] for row in rows] == [None, 1.5, 4.0]
    found = read_bench(tmp_path, "users")
    assert [case.case for case in found.cases] == ["m users=8 none", "m users=8 smd", "m users=8 full"]
    assert found.cases[1].labels == {"model": "m", "users": 8, "mode": "smd"}
    assert found.cases[2].extra["merge_ms"].median == 0.4
    assert found.settings["repeats"] == 3
    assert found.environment["torch_threads"] > 0
    assert found.environment["wall_s"]["bench"] >= 0


def test_a_case_may_have_nothing_to_compare_with(tmp_path: Path) -> None:
    (row,) = measure(Case("m", lambda: 2.0, None, "MB", labels={"model": "m"}), repeats=2)
    assert (row["value"], row["baseline"], row["ratio"]) == (2.0, None, None)


def test_each_size_has_a_file_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench=transport_roundtrip", "size=huge", f"results_dir={tmp_path}"]) == 2
    assert "size=huge is unknown" in capsys.readouterr().err
    words = ["bench=transport_roundtrip", "size=full", "only=nothing_of_this_name", f"results_dir={tmp_path}"]
    assert main(words) == 2
    assert "only=nothing_of_this_name is part of no case's name" in capsys.readouterr().err
    assert bench_file(tmp_path, "transport_roundtrip", "full").name == "transport_roundtrip-full.json"


def test_a_bench_writes_what_it_has_after_each_case_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "toy.json"
    closed: list[str] = []

    def cases() -> Iterator[Case]:
        for name in ("m one/two", "m three/four"):
            try:
                yield Case(name, lambda: 1.0, lambda: 2.0, "s", repeats=2)
            finally:
                closed.append(name)
            assert not path.exists(), "a part of a bench is no bench"
            assert json.loads(path.with_name("toy.json.part").read_text())["cases"][-1]["case"] == name

    rows, written = run(cases(), Settings(repeats=5), path)
    assert written == path
    assert [file.name for file in path.parent.iterdir()] == ["toy.json"]
    assert json.loads(path.read_text())["cases"] == rows
    assert closed == ["m one/two", "m three/four"]
    assert [row["n"] for row in rows] == [2, 2]


def test_only_some_cases_can_be_run(tmp_path: Path) -> None:
    wanted = [Case("a x/y", lambda: 1.0, lambda: 1.0, "s"), Case("b x/y", lambda: 1.0, lambda: 1.0, "s")]
    path = tmp_path / "bench.json"
    rows, written = run(wanted, Settings(repeats=1, only="b x"), path)
    assert ([row["case"] for row in rows], written) == (["b x/y"], path)
    whole, _ = run(wanted, Settings(repeats=1), path)
    rows, written = run(wanted, Settings(repeats=1, only="a x"), path)
    assert json.loads(path.read_text())["cases"] == whole, "a part never replaces what is there"
    assert json.loads(written.read_text())["cases"] == rows


def test_a_timing_table_reads_bench_files_and_measures_nothing(tmp_path: Path) -> None:
    words = ["table=timing", f"results_dir={tmp_path}"]
    assert table.main(words) == 0
    assert "run `smd bench bench=smd_decode` first" in (tmp_path / "tables" / "timing.md").read_text()
    folder = tmp_path / "bench"
    folder.mkdir()
    for name in ("smd_decode", "transport_roundtrip", "vocab_matching"):
        row = {"case": f"tiny {name} a/b", "value": 2.0, "baseline": 1.0, "ratio": 2.0, "unit": "ms", "n": 3}
        (folder / f"{name}.json").write_text(json.dumps({"environment": {}, "settings": {}, "cases": [row]}))
    assert table.main(words) == 0
    shown = (tmp_path / "tables" / "timing.md").read_text()
    assert "tiny vocab_matching a/b" in shown
    assert "Made by: smd bench bench=smd_decode && " in shown
    assert "only" not in shown
    part = {"environment": {}, "settings": {"only": "tiny"}, "cases": [row]}
    (folder / "vocab_matching.json").write_text(json.dumps(part))
    assert table.main(words) == 0
    said = "of vocab_matching only cases with 'tiny' in their name were measured"
    assert said in (tmp_path / "tables" / "timing.md").read_text()
    assert "&& smd table table=timing" in shown
    assert "first" not in shown
