"""Committed tables: made of records that lie beside them, or marked as scored by an earlier version."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from smd_research.core.paths import conf_dir
from smd_research.records import packed

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="results/reference is not in this checkout")


def swept() -> list[str]:
    """Names of the committed tables that are made of records."""
    declared = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (conf_dir() / "table").iterdir()
    }
    return sorted(name for name, node in declared.items() if node.get("sweep") and (REFERENCE / f"{name}.md").exists())


@pytest.mark.parametrize("name", swept())
def test_a_table_has_its_records_or_says_that_it_has_none(name: str) -> None:
    kept = (REFERENCE / "records" / f"{name}.parquet").exists()
    marked = "Scored by version 1" in (REFERENCE / f"{name}.md").read_text(encoding="utf-8")
    assert kept != marked, "made again: commit its records, and the mark goes with the old table"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_says_which_claims_are_of_an_earlier_version(page: Path) -> None:
    captions = re.findall(r"\(table (\w+)(, scored by version 1)?\)\n:file:", page.read_text(encoding="utf-8"))
    for name, marked in captions:
        if name in swept():
            assert bool(marked) != (REFERENCE / "records" / f"{name}.parquet").exists(), name


@pytest.mark.parametrize("name", sorted(path.stem for path in (REFERENCE / "records").glob("*.parquet")))
def test_every_figure_of_a_table_comes_from_a_record_beside_it(name: str) -> None:
    ids = {record.cell.id for record in packed(REFERENCE / "records" / f"{name}.parquet")}
    table = pd.read_csv(REFERENCE / f"{name}.csv", dtype=str, keep_default_na=False)
    named = {cell for column in table if column.endswith(" cells") for text in table[column] for cell in text.split()}
    assert named
    assert named <= ids


@pytest.mark.parametrize("name", sorted(path.stem for path in (REFERENCE / "records").glob("*.parquet")))
def test_no_record_names_a_folder_of_whoever_made_it(name: str) -> None:
    for record in packed(REFERENCE / "records" / f"{name}.parquet"):
        assert "results_dir=" not in record.cell.command
