"""Which texts each step has: a plan for the whole run, a function of the seed and of lengths or a rate alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as lightning
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smd_research.data.texts import Labelled, Readable

_WINDOW = 50
"""Batches among which texts are sorted by length; wide enough that little is padded, narrow enough to stay random."""


def planned(lengths: NDArray[np.int64], batch: int, steps: int, seed: int) -> list[NDArray[np.int64]]:
    """The texts of each step: every text once before any comes again, batches of about equal length in random order.

    Args:
        lengths: of the texts ``[n]``.
        batch: texts of a step; the last batch of a pass may have fewer.
        steps: how many batches.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    plan: list[NDArray[np.int64]] = []
    while len(plan) < steps:
        order = rng.permutation(len(lengths))
        for start in range(0, len(order), batch * _WINDOW):
            window = order[start : start + batch * _WINDOW]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches = [window[at : at + batch] for at in range(0, len(window), batch)]
            plan += [batches[number] for number in rng.permutation(len(batches))]
    return plan[:steps]


def sampled(texts: int, rate: float, steps: int, seed: int) -> list[NDArray[np.int64]]:
    """The texts of each step: every text by itself with the same probability, so that their number varies (Poisson).

    Args:
        texts: how many there are.
        rate: the probability.
        steps: how many samples; some may be empty.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    return [np.flatnonzero(rng.random(texts) < rate) for _ in range(steps)]


def in_order(lengths: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """Every text once, sorted by length."""
    order = np.argsort(lengths, kind="stable")
    return [order[at : at + batch] for at in range(0, len(order), batch)]


@dataclass(frozen=True)
class Batches(Dataset[Labelled | Tensor]):
    """Planned batches; without labels a batch is its token ids ``[rows, length]`` alone."""

    texts: Readable
    plan: Sequence[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Labelled | Tensor:
        """One batch."""
        found = self.texts.batch(self.plan[index])
        return found if self.texts.labels else found[0]

    def loader(self) -> DataLoader[Labelled | Tensor]:
        """The batches in order."""
        return DataLoader(self, batch_size=None, shuffle=False)


class PlannedTexts(lightning.LightningDataModule):  # type: ignore[misc]  # Lightning is untyped here
    """The steps of a run in as many epochs as there are checks of the held-out texts.

    As the plan stands before the run begins, a resumed run sees the same batches.

    Args:
        training: texts to train on.
        held_out: texts that are looked at after each epoch.
        plan: the texts of each step.
        batch: texts of a batch of those held out.
        checks: number of epochs.
    """

    def __init__(
        self, training: Readable, held_out: Readable, plan: Sequence[NDArray[np.int64]], batch: int, checks: int
    ) -> None:
        super().__init__()
        self._training, self._held_out = training, held_out
        self._plan, self._batch, self._checks = plan, batch, checks

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the epoch that starts now (the trainer asks again before each epoch, also after a resume)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        first, last = (len(self._plan) * at // self._checks for at in (epoch, epoch + 1))
        return self.batches(self._training, self._plan[first:last])

    def batches(self, texts: Readable, plan: Sequence[NDArray[np.int64]]) -> DataLoader[Any]:
        """Batches to train on, as the plan says."""
        return Batches(texts, plan).loader()

    def val_dataloader(self) -> DataLoader[Labelled | Tensor]:
        """All held-out texts."""
        return Batches(self._held_out, in_order(self._held_out.lengths, self._batch)).loader()
