"""A cell that stops leaves a record with one line, and a stack on the terminal only where nobody foresaw it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from experiments.trials.running import Runner
from smd_research.core.cell import Cell
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.records import Status

CELL = Cell({"name": "m"}, {"name": "d"}, {"name": "smd"}, {"name": "prior"})
PLAN = cast(Any, SimpleNamespace(cell=CELL, address=None, record_texts=True))


@pytest.mark.parametrize(
    ("error", "status", "reason", "shown"),
    [
        (ConfigError("foreseen"), Status.FAILED, "foreseen", ""),
        (ValueError("two\nlines"), Status.FAILED, "ValueError: two lines", "Traceback"),
        (NotApplicableError("needs more"), Status.NOT_APPLICABLE, "needs more", ""),
    ],
)
def test_only_unforeseen_errors_show_their_stack(
    error: Exception,
    status: Status,
    reason: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr("experiments.trials.trial.trial", stop)
    record = Runner()._try(PLAN)
    assert (record.status, record.reason) == (status, reason)
    told = capsys.readouterr().err
    assert shown in told
    assert bool(told) == bool(shown)
