"""A record without its texts: what stays, what goes, and what is refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_records import make_record

from smd_research.core.errors import RecordError
from smd_research.data.prompts import TokenSpan
from smd_research.records import NO_TEXTS, Item, Status, Store, items_frame, read, read_items, without_texts
from smd_research.records.items import TEXTS, SecretCount
from smd_research.reports.render.prompt_view import show_prompts


def test_numbers_stay_and_texts_go(tmp_path: Path) -> None:
    whole = make_record()
    bare = read(Store(tmp_path).write(without_texts(whole)).path or Path())
    assert (bare.texts, bare.metrics, bare.cell) == (False, whole.metrics, whole.cell)
    assert all(not len(value) for column in TEXTS for value in bare.items[column])
    (item, _) = read_items(bare.items)
    assert (item.prompt_id, item.metrics, item.length) == ("p0", {"token_accuracy": 0.5}, 4)
    assert item.secrets == [SecretCount("name", 1, 0)]
    assert without_texts(bare) is bare
    assert read_items(items_frame(read_items(bare.items), texts=False))[0].secrets == item.secrets


def test_secrets_are_counted_by_type() -> None:
    spans = [TokenSpan(0, 1, "name"), TokenSpan(1, 2, "name"), TokenSpan(3, 4, "date")]
    item = Item("p", truth_ids=[1, 2, 3, 4], guess_ids=[1, 9, 3, 4], spans=spans)
    (bare,) = read_items(items_frame([item], texts=False))
    assert bare.secrets == [SecretCount("name", 2, 1), SecretCount("date", 1, 1)]


def test_a_record_from_before_has_texts(tmp_path: Path) -> None:
    folder = Store(tmp_path).write(make_record()).path
    assert folder is not None
    environment, document = (json.loads((folder / f"{name}.json").read_text()) for name in ("environment", "metrics"))
    assert document.pop("texts") is True
    (folder / "metrics.json").write_text(json.dumps(document))
    environment["files"]["metrics.json"] = hashlib.sha256((folder / "metrics.json").read_bytes()).hexdigest()
    (folder / "environment.json").write_text(json.dumps(environment))
    assert read(folder).texts


@pytest.mark.parametrize(
    "items",
    [
        make_record().items,
        pd.DataFrame({"prompt_id": ["p"], "length": [4], "secrets": [[{"type": "name", "count": 2, "found": 3}]]}),
        pd.DataFrame({"prompt_id": ["p"], "length": [1], "secrets": [[{"type": "name", "count": 2, "found": 0}]]}),
    ],
    ids=["holds texts", "found more than there are", "more secrets than tokens"],
)
def test_what_does_not_hold_together_is_refused(items: pd.DataFrame, tmp_path: Path) -> None:
    written = Store(tmp_path).write(replace(make_record(), items=items, texts=False))
    with pytest.raises(RecordError, match=r"items\.parquet"):
        read(written.path or Path())


def test_a_failed_record_loses_nothing(tmp_path: Path) -> None:
    failed = without_texts(make_record(status=Status.FAILED, reason="out of memory"))
    assert read(Store(tmp_path).write(failed).path or Path()).reason == "out of memory"


def test_the_prompt_view_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_prompts(without_texts(make_record()))
    shown = capsys.readouterr().out
    assert NO_TEXTS in shown
    assert "p1  tokens 50" in shown
    assert "patient" not in shown
