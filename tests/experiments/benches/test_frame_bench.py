"""The bench of the frame leaves records that a sweep knows, and says what it sets beside what."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from experiments.benches import frame
from experiments.benches.case import Settings
from experiments.composing.app import VERSION_BASE
from experiments.composing.cells import composed
from smd_research.core.paths import conf_dir
from smd_research.records import Store


@pytest.fixture(autouse=True)
def started() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        yield


def test_what_is_remembered_is_known(tmp_path: Path) -> None:
    cells = frame.sweep(1)
    frame.remember(cells, tmp_path)
    assert len(cells) == 10
    assert all(Store(tmp_path).lookup(composed(words).cell) for words in cells)


def test_every_case_says_what_it_is_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "remember", lambda *_: None)
    found = list(frame.cases(Settings()))
    assert [case.name for case in found] == [
        "help smd/python",
        "list smd/python",
        "composition lab/hydra",
        "known cells=200/20",
        "sweep whole/cells",
    ]
    assert found[3].labels == {"cells": 200}
