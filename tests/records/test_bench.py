import json
import math
from pathlib import Path

import pytest

from smd_research.core.errors import RecordError
from smd_research.records.bench import read_bench

CASES = [
    {"case": "100m users=8 smd/none", "value": 61.2, "baseline": 57.0, "ratio": 1.0737, "unit": "ms/token", "n": 50},
    {"case": "pipe", "value": 40.0, "baseline": None, "ratio": None, "unit": "us", "n": 1000},
]


def write(folder: Path, name: str, content: str) -> None:
    (folder / "bench").mkdir(exist_ok=True)
    (folder / "bench" / f"{name}.json").write_text(content)


def test_cases_are_read(tmp_path: Path) -> None:
    write(tmp_path, "decode", json.dumps({"environment": {}, "settings": {}, "cases": CASES}))
    cases = read_bench(tmp_path, "decode").cases
    assert cases[0].ratio == 1.0737
    assert math.isnan(cases[1].ratio)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '[{"case": "x"}]', '{"case": 1}', '{"cases": [1]}', "[" * 100_000, "1" * 5000],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: str) -> None:
    write(tmp_path, "decode", content)
    with pytest.raises(RecordError, match=r"corrupt bench file .*decode\.json"):
        read_bench(tmp_path, "decode")


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="smd bench bench=decode"):
        read_bench(tmp_path, "decode")
