"""What a table declares, and what it is made of."""

import json
from pathlib import Path

import pytest

from experiments.commands import table
from experiments.composing.declared import declared, of_benches, over_links
from experiments.composing.overrides import UsageError
from smd_research.boundary import Link
from smd_research.core.errors import ConfigError
from smd_research.metrics.spread import Spread
from smd_research.records.bench import BenchCase

VIEW = {"_target_": "smd_research.reports.tables.summary.summary"}


def test_a_sweep_has_one_list_or_one_for_each_size() -> None:
    assert declared({"title": "t", "view": VIEW, "sweep": ["a=1"]}, "small").sweep == ["a=1"]
    both = {"title": "t", "view": VIEW, "sweep": {"small": ["a=1"], "full": ["a=1,2"]}}
    assert declared(both, "full").sweep == ["a=1,2"]
    with pytest.raises(ConfigError, match="has one size"):
        declared({"title": "t", "view": VIEW, "sweep": ["a=1"]}, "full")
    with pytest.raises(ConfigError, match="nothing to show"):
        declared({"title": "t", "view": VIEW}, "small")
    with pytest.raises(UsageError, match="unknown size 'ful'"):
        declared(both, "ful")


def test_any_value_may_differ_by_size() -> None:
    view = {**VIEW, "rows": {"users": {"small": [1, 2], "full": None}, "mode": ["smd"]}}
    node = {"title": "t", "view": view, "benches": ["b"]}
    assert declared(node, "small").view["rows"] == {"users": [1, 2], "mode": ["smd"]}
    assert declared(node, "full").view["rows"] == {"users": None, "mode": ["smd"]}


def test_link_seconds_are_modelled_from_what_was_counted() -> None:
    counts = {"messages_per_token": 10.0, "rounds_per_token": 5.0, "frame_bytes_per_token": 2000.0}
    extra = {name: Spread(value) for name, value in counts.items()}
    case = BenchCase("c", 1.0, 1.0, 1.0, "ms", 5, {}, extra)
    link = Link("wan", round_trip_s=0.04, bytes_per_s=1e6, message_s=1e-3)
    assert over_links(case, [link]).extra["link_wan_ms"].median == pytest.approx(200 + 2 + 10)
    assert over_links(BenchCase("c", 1.0, 1.0, 1.0, "ms", 5), [link]).extra == {}


def test_a_table_of_benches_reads_the_files_of_its_size(tmp_path: Path) -> None:
    row = {"case": "m a/b", "value": 2.0, "baseline": 1.0, "ratio": 2.0, "unit": "ms", "n": 3}
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "b-full.json").write_text(json.dumps({"environment": {}, "settings": {}, "cases": [row]}))
    node = {"title": "t", "view": VIEW, "benches": ["b"]}
    assert of_benches(declared(node, "small"), tmp_path).remarks[0].endswith("run `smd bench bench=b` first")
    found = of_benches(declared(node, "full"), tmp_path)
    assert isinstance(found.source, tuple)
    assert found.remarks == ()
    assert found.sample.startswith("Medians of n = 3")


def test_a_table_is_shown_before_it_is_complete(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["table=inversion", *small, f"results_dir={tmp_path}", "attack=prior"]
    assert table.main([*words, "rerun=never"]) == 0
    shown = (tmp_path / "tables" / "inversion.md").read_text()
    assert "| smd | ... |" in shown
    assert "1 of 1 cells have not run yet; fill them with: smd table table=inversion" in shown
    assert "rerun" not in shown
    assert table.main(words) == 0
    shown = (tmp_path / "tables" / "inversion.md").read_text()
    assert "..." not in shown
    assert "n = 3 prompts a cell, seed 0" in shown
    assert (tmp_path / "tables" / "inversion.tex").exists()
