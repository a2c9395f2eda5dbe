from pathlib import Path

import pytest
from grid import records

from smd_research.core.errors import RecordError
from smd_research.records import Store, load
from smd_research.reports.chosen import chosen, chosen_where


def test_a_record_is_chosen_by_its_labels(tmp_path: Path) -> None:
    for record in records():
        Store(tmp_path).write(record)
    frame = load(tmp_path)
    found = chosen(frame, defense="smd", attack="prior")
    assert (found.cell.defense["name"], found.cell.attack["name"]) == ("smd", "prior")
    assert len(found.items) == 12
    eight = chosen_where(frame, {"defense.epsilon": 8, "attack": "prior"})
    assert eight.cell.defense["epsilon"] == 8
    with pytest.raises(RecordError, match="2 records have defense=split, attack=prior: one is needed"):
        chosen(frame, defense="split", attack="prior")
    with pytest.raises(RecordError, match="0 records have attack=unheard"):
        chosen(frame, attack="unheard")
