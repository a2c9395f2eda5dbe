import json
from pathlib import Path

import pytest

from smd_research.core.errors import RecordError
from smd_research.records.bench import read_bench
from smd_research.reports.render.text import markdown
from smd_research.reports.tables.benches import bench_table

CASES = [
    {"case": "100m users=8 smd/none", "value": 61.2, "baseline": 57.0, "ratio": 1.0737, "unit": "ms/token", "n": 50},
    {"case": "pipe", "value": 40.0, "baseline": None, "ratio": None, "unit": "us", "n": 1000},
]


def write(folder: Path, name: str, content: str) -> None:
    (folder / "bench").mkdir(exist_ok=True)
    (folder / "bench" / f"{name}.json").write_text(content)


def test_cases_are_read_and_shown(tmp_path: Path) -> None:
    write(tmp_path, "decode", json.dumps({"environment": {}, "settings": {}, "cases": CASES}))
    cases = read_bench(tmp_path, "decode").cases
    assert cases[0].ratio == 1.0737
    shown = markdown(bench_table(cases, "Decode"))
    assert "| 100m users=8 smd/none | 61.2 ms/token | 57.0 ms/token | 1.07x | 50 |" in shown
    assert "| pipe | 40.0 us | – | – | 1000 |" in shown


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"case": "x"}]', '{"case": 1}', '{"cases": [1]}'])
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: str) -> None:
    write(tmp_path, "decode", content)
    with pytest.raises(RecordError, match=r"corrupt bench file .*decode\.json"):
        read_bench(tmp_path, "decode")


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="smd bench bench=decode"):
        read_bench(tmp_path, "decode")
