"""What is seen of a training inside another computation, and how it is interrupted."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from smd_research.core import progress
from smd_research.training.quiet import StepBar, quietly


def test_a_log_tells_of_its_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    bar = StepBar("awareness recovery", 4)
    for step in (1, 4):
        bar.on_train_batch_end(SimpleNamespace(global_step=step))
    bar.teardown()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("  awareness recovery: 1 of 4, ")
    assert lines[1] == "  awareness recovery: 4 of 4"


class Line(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """One weight, and whatever ends its training."""

    def __init__(self, end: BaseException) -> None:
        super().__init__()
        self.layer, self._end = nn.Linear(1, 1), end

    def training_step(self, batch: list[Tensor], *_: Any) -> Tensor:
        raise self._end

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)], ids=["Ctrl-C", "terminated"])
def test_an_interrupted_training_ends_no_more_than_itself(end: BaseException) -> None:
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    heard = signal.getsignal(signal.SIGINT)
    with quietly():
        trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=1, **silent)
    with pytest.raises(type(end)) as raised, quietly():
        trainer.fit(Line(end), DataLoader(TensorDataset(torch.ones(2, 1))))
    assert raised.value.args == end.args
    assert signal.getsignal(signal.SIGINT) is heard
