"""What a table declares, and what it is made of."""

import json
from pathlib import Path

import pytest

from experiments.commands import table
from experiments.composing.declared import declared, of_benches, over_links
from experiments.composing.overrides import UsageError
from experiments.composing.products import joined
from smd_research.boundary import Link
from smd_research.core.errors import ConfigError
from smd_research.metrics.spread import Spread
from smd_research.records.bench import BenchCase

VIEW = "summary"


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
    view = {"layout": {"rows": {"users": {"small": [1, 2], "full": None}, "mode": ["smd"]}}}
    node = {"title": "t", "view": view, "benches": ["b"]}
    assert declared(node, "small").view == {"layout": {"rows": {"users": [1, 2], "mode": ["smd"]}}}
    assert declared(node, "full").view == {"layout": {"rows": {"users": None, "mode": ["smd"]}}}


def test_common_words_stand_before_every_line() -> None:
    lines = ["defense.rank=1,2", "attack=b", "defense.audit=norm"]
    node = {"title": "t", "view": VIEW, "common": "defense=smd defense.audit=rank seed=1", "sweep": lines}
    assert declared(node, "small").sweep == [
        "defense=smd defense.audit=rank seed=1 defense.rank=1,2",
        "defense=smd defense.audit=rank seed=1 attack=b",
        "defense=smd seed=1 defense.audit=norm",
    ]
    assert joined("", "a=1") == "a=1"


def test_a_part_that_a_line_chooses_leaves_the_common_options_of_that_part_behind() -> None:
    assert joined("task=x defense=smd defense.audit=rank", "defense=none") == "task=x defense=none"
    assert joined("defense=smd attack=a", "defense.audit=rank") == "defense=smd attack=a defense.audit=rank"


def test_common_words_may_differ_by_size_and_reach_the_cell_beside_a_halving() -> None:
    halving = {"rungs": ["tuning.steps=1"], "keep": 0.5, "minimise": "leak", "keeping": "accuracy", "slack": 0.1}
    node = {
        "title": "t",
        "view": VIEW,
        "common": {"small": "task=x defense=smd defense.rank=1", "full": "task=y"},
        "sweep": {"small": ["seed=1,2"], "full": ["seed=1"]},
        "halving": {**halving, "beside": "defense=none"},
    }
    small, full = declared(node, "small"), declared(node, "full")
    assert (small.sweep, full.sweep) == (["task=x defense=smd defense.rank=1 seed=1,2"], ["task=y seed=1"])
    assert small.halving is not None
    assert small.halving.beside == "task=x defense=none"


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
