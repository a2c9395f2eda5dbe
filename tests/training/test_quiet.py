"""What is seen of a short training."""

from types import SimpleNamespace

import pytest

from smd_research.core import progress
from smd_research.training.quiet import StepBar


def test_a_log_tells_of_its_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    bar = StepBar("awareness recovery", 4)
    for step in (1, 4):
        bar.on_train_batch_end(SimpleNamespace(global_step=step))
    bar.teardown()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  awareness recovery: 1 of 4, ")
    assert lines[1] == "  awareness recovery: 4 of 4"
