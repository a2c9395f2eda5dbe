"""How a client learns what to send: on public text, beside the stock model as its teacher.

Whatever a lesson asks of the states besides, the provider's blocks, which stay as they are, should go on as they did:
the loss is the Kullback-Leibler divergence of the next-token law from the teacher's, and a penalty.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.mechanisms.releases import Moments, PlainRelease, Release, SimulatedClient
from smd_research.mechanisms.split_inference import SplitParameters
from smd_research.models.bundle import Bundle
from smd_research.models.spliced import SplicedModel
from smd_research.training.causal_lm import Optimisation, optimizers
from smd_research.training.quiet import StepBar, quietly
from smd_research.training.recovery import packed
from smd_research.training.short import Drawn

_MEASURED = 64
"""Rows of public text whose states are measured before training."""


@dataclass(frozen=True)
class Schedule:
    """How long and on what a client learns.

    Attributes:
        steps: optimiser steps.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak of AdamW's.

    Raises:
        ConfigError: for a value out of range.
    """

    steps: int
    batch: int
    row_tokens: int
    learning_rate: float

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("row_tokens", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"defense.{name}={getattr(self, name)} is out of range: it is at least {least}")
        if not self.learning_rate > 0:
            raise ConfigError(f"defense.learning_rate={self.learning_rate:g} is out of range: it is above 0")


@dataclass(frozen=True, repr=False, eq=False)
class StatesOfText:
    """States at the cut of public text, before anything is learnt.

    Attributes:
        bundle: the model.
        states: ``[rows, width]``.
        moments: their measures.
        frequency: share of each token in public text, add-one smoothed ``[vocab]``.
        rng: draws what a lesson begins with.
    """

    bundle: Bundle
    states: Tensor
    moments: Moments
    frequency: Tensor
    rng: np.random.Generator


class Penalty(nn.Module, ABC):
    """What a lesson asks of the states besides leaving the answer as it is; may hold an opponent that learns too."""

    @abstractmethod
    def forward(self, states: Tensor, sent: Tensor, ids: Tensor) -> Tensor:
        """The penalty, a scalar.

        Args:
            states: at the cut ``[b, n, width]``.
            sent: what was made of them ``[b, n, width]``.
            ids: the tokens behind them ``[b, n]``.
        """


class Lesson(ABC):
    """What is learnt: a frozen dataclass of its options, which are public."""

    @abstractmethod
    def begin(self, sample: StatesOfText) -> tuple[Release, Penalty | None]:
        """The release before training, and what is asked of it."""


@dataclass(frozen=True, repr=False, eq=False)
class Taught:
    """What a lesson left.

    Attributes:
        release: trained, and trained no further.
        losses: of every step.
    """

    release: Release
    losses: tuple[float, ...] = field(repr=False)


class Teaching(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """A release learns between a model's blocks.

    Args:
        model: whose answers stay near the ones it gives to states as they are.
        release: trained in place.
        penalty: trained in place, where it holds anything.
        optimisation: of both.
        rng: draws the release's noise.
    """

    def __init__(
        self,
        model: SplicedModel,
        release: Release,
        penalty: Penalty | None,
        optimisation: Optimisation,
        rng: np.random.Generator,
    ) -> None:
        super().__init__()
        self.release, self.penalty = release, penalty
        self._model, self._optimisation, self._rng = model, optimisation, rng
        self.losses: list[float] = []

    def loss(self, ids: Tensor) -> Tensor:
        """Divergence from the teacher's law (nats a token) and penalty, of rows ``[b, n]``."""
        seen: list[Tensor] = []

        def change(states: Tensor) -> Tensor:
            seen.extend((states.detach(), self.release.release(states.detach(), self._rng)))
            return seen[1]

        with torch.no_grad():
            target = self._model.logits(ids).float().log_softmax(-1)
        law = self._model.logits(ids, change).float().log_softmax(-1)
        total = functional.kl_div(law, target, reduction="none", log_target=True).sum(-1).mean()
        if self.penalty is not None:
            extra: Tensor = self.penalty(*seen, ids)
            total = total + extra
        return total

    def training_step(self, ids: Tensor) -> Tensor:
        """One batch."""
        loss = self.loss(ids)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and the schedule, stepped every batch."""
        return optimizers(self, self._optimisation)


@lru_cache(maxsize=4)
def taught(
    bundle: Bundle, layer: int, corpus: tuple[tuple[int, ...], ...], lesson: Lesson, schedule: Schedule, seed: int
) -> Taught:
    """A release as a lesson leaves it; kept for the next cell of the process.

    Args:
        bundle: the public model.
        layer: blocks before the cut.
        corpus: token ids of public text.
        lesson: what is learnt.
        schedule: for how long.
        seed: of beginning, order and noise.

    Raises:
        ConfigError: for too little public text.
    """
    rows = packed(corpus, min(schedule.row_tokens, bundle.geometry.context), bundle.end_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "lesson", "weights").integers(2**62)))
        release, penalty = lesson.begin(_sample(bundle, layer, rows, corpus, seed))
        release, penalty = release.to(bundle.device), penalty.to(bundle.device) if penalty else None
        losses = _train(bundle, layer, rows, release, penalty, schedule, seed) if schedule.steps else ()
    return Taught(release.eval().requires_grad_(False), losses)


def _sample(bundle: Bundle, layer: int, rows: Tensor, corpus: Sequence[Sequence[int]], seed: int) -> StatesOfText:
    client = SimulatedClient(bundle, SplitParameters(layer), PlainRelease())
    chosen = rows[generator(seed, "lesson", "sample").permutation(len(rows))[:_MEASURED]]
    states = client.states(chosen.to(bundle.device)).flatten(0, 1)
    counts = torch.ones(bundle.geometry.vocab)
    counts += torch.bincount(torch.tensor([i for text in corpus for i in text]), minlength=len(counts))
    rng = generator(seed, "lesson", "begin")
    return StatesOfText(bundle, states, Moments.of(states), (counts / counts.sum()).to(bundle.device), rng)


def _train(
    bundle: Bundle, layer: int, rows: Tensor, release: Release, penalty: Penalty | None, schedule: Schedule, seed: int
) -> tuple[float, ...]:
    steps = schedule.steps
    optimisation = Optimisation(schedule.learning_rate, max(1, steps // 20), steps, weight_decay=0.0)
    rng = generator(seed, "lesson", "noise")
    teaching = Teaching(SplicedModel(bundle, layer), release, penalty, optimisation, rng)
    order = int(generator(seed, "lesson", "order").integers(2**62))
    with quietly():
        trainer = lightning.Trainer(
            accelerator="gpu" if bundle.device.type == "cuda" else "cpu",
            devices=1,
            precision="32-true",
            max_epochs=1,
            gradient_clip_val=1.0,
            callbacks=[StepBar("the client learns", steps)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(teaching, DataLoader(Drawn.of(rows, steps * schedule.batch, order), batch_size=schedule.batch))
    release.to(bundle.device)
    return tuple(teaching.losses)
