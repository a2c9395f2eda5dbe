"""Records of every past schema are read for ever: a new schema adds a folder here and changes none."""

from pathlib import Path

import pytest

from smd_research.records import Status, Store, load, read_items

SCHEMAS = sorted((Path(__file__).parent / "history").iterdir())


@pytest.mark.parametrize("folder", SCHEMAS, ids=lambda folder: f"schema-{folder.name}")
def test_old_records_are_read(folder: Path) -> None:
    found = {record.status: record for record in Store(folder).records()}
    assert set(found) == set(Status) - {Status.MISSING}
    assert found[Status.OK].metrics["token_accuracy"].mean == 0.75
    assert read_items(found[Status.OK].items)[0].truth_tokens == ["the", " patient", " Ann", " Lee"]
    assert "went away" in found[Status.FAILED].reason
    assert len(load(folder)["id"].unique()) == 3


@pytest.mark.parametrize("folder", SCHEMAS, ids=lambda folder: f"schema-{folder.name}")
def test_old_records_are_still_found_by_their_cell(folder: Path) -> None:
    """Their ids hold as long as ID_VERSION does."""
    store = Store(folder)
    for record in store.records():
        assert record.path == store.folder(record.cell)
