"""Recovery training: a model whose token tables were changed learns to do again what it did (reconstructed).

The phases are CypherTalk's (arXiv 2403.07283), their losses ours. Teacher is the model as it was, reading plain ids;
student the changed one, reading the same text as cipher ids. *Awareness* recovery matches hidden states, logits and
the text itself, *function* recovery the logits alone. The text is public.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedModel

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.training.causal_lm import Optimisation, optimizers
from smd_research.training.checkpoints import resumable
from smd_research.training.flops import forward_flops, training_flops
from smd_research.training.loop import Stopwatch
from smd_research.training.quiet import StepBar, quietly
from smd_research.training.short import Drawn

CHECKPOINTS = 8
"""How often a phase keeps its state."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FULL: Precision = "32-true"

Encode = Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]
"""Cipher ids of plain ids, drawn by a generator where a token has several."""


@dataclass(frozen=True)
class LossWeights:
    """What a phase minimises: the sum of three losses, each by its weight.

    Attributes:
        hidden: squared distance of the hidden states after each block but the last, relative to the teacher's square.
        logit: Kullback-Leibler divergence from the teacher's next-token law, nats.
        text: cross-entropy of the text itself, nats.
    """

    hidden: float
    logit: float
    text: float


FUNCTION = LossWeights(0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Phase:
    """One of the two trainings.

    Attributes:
        name: names its checkpoint and its bar.
        weights: what it minimises.
        steps: optimiser steps.
        batch: rows of a step.
        learning_rate: peak of AdamW's.
        seed: of the order of the rows and of what ``Encode`` draws.
        precision: of the arithmetic.
    """

    name: str
    weights: LossWeights
    steps: int
    batch: int
    learning_rate: float
    seed: int
    precision: Precision = FULL


@dataclass(frozen=True)
class TrainingCost:
    """What a training took: seconds, all parts of a resumed run together, and floating-point operations."""

    seconds: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "TrainingCost") -> "TrainingCost":
        return TrainingCost(self.seconds + other.seconds, self.flops + other.flops)


class Distillation(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """A student that reads cipher ids learns from a teacher that reads plain ones.

    Args:
        student: trained in place: what asks for a gradient.
        teacher: never changed, and no part of a checkpoint.
        homophones: cipher ids of every plain id ``[V, most]``; the student's logit of a plain id is the largest.
        weights: of the losses.
        optimisation: of the student.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        homophones: Tensor,
        weights: LossWeights,
        optimisation: Optimisation,
    ) -> None:
        super().__init__()
        self.student = student
        self._teacher = (teacher,)  # in a tuple, which registers nothing
        self.register_buffer("homophones", homophones, persistent=False)
        self._weights, self._optimisation = weights, optimisation

    def loss(self, plain: Tensor, cipher: Tensor) -> Tensor:
        """The weighted loss of rows, as plain and as cipher ids ``[rows, length]``."""
        weights = self._weights
        with torch.no_grad():
            right = self._teacher[0](input_ids=plain, use_cache=False, output_hidden_states=weights.hidden > 0)
        ours = self.student(input_ids=cipher, use_cache=False, output_hidden_states=weights.hidden > 0)
        law = decoded(ours.logits, self.homophones).float().log_softmax(-1)
        total = law.new_zeros(())
        if weights.logit:
            target = right.logits.float().log_softmax(-1)
            divergence = functional.kl_div(law, target, reduction="none", log_target=True)
            total = total + weights.logit * divergence.sum(-1).mean()
        if weights.text:
            total = total + weights.text * functional.nll_loss(law[:, :-1].flatten(0, 1), plain[:, 1:].flatten())
        if weights.hidden:
            pairs = zip(_inner(ours.hidden_states), _inner(right.hidden_states), strict=True)
            total = total + weights.hidden * sum(((a - b).square().mean() / b.square().mean() for a, b in pairs), 0.0)
        return total

    def training_step(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        """One batch."""
        return self.loss(*rows)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and the schedule, stepped every batch."""
        return optimizers(self, self._optimisation)


def _inner(states: Sequence[Tensor]) -> list[Tensor]:
    """States after each block but the last, in the precision that losses are summed in."""
    return [state.float() for state in states[1:-1]]


def decoded(logits: Tensor, homophones: Tensor) -> Tensor:
    """Logits of plain ids ``[..., V]`` from those of cipher ids ``[..., V']``: of several, the largest."""
    if homophones.shape[1] == 1:
        return logits.index_select(-1, homophones[:, 0])
    return logits[..., homophones].amax(-1)


class EncodedRows(lightning.LightningDataModule):  # type: ignore[misc]  # Lightning is untyped here
    """Batches of one stretch between checkpoints; a function of the phase and the stretch's number alone."""

    def __init__(self, rows: Tensor, encode: Encode, phase: Phase) -> None:
        super().__init__()
        self._encode, self._phase = encode, phase
        self._drawn = Drawn.of(rows, phase.steps * phase.batch, phase.seed)

    @property
    def stretch(self) -> int:
        """Steps between checkpoints."""
        return -(-self._phase.steps // CHECKPOINTS)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Rows of the stretch that starts now (the trainer asks again before each, also after a resume)."""
        number = self.trainer.current_epoch if self.trainer else 0
        size = self.stretch * self._phase.batch
        plain = self._drawn.rows[self._drawn.order[number * size : (number + 1) * size]]
        rng = generator(self._phase.seed, "recovery", self._phase.name, number)
        cipher = torch.from_numpy(self._encode(plain.numpy(), rng))
        return DataLoader(TensorDataset(plain, cipher), batch_size=self._phase.batch)


def packed(corpus: Sequence[Sequence[int]], row_tokens: int, end_id: int | None) -> Tensor:
    """Public text as rows ``[n, row_tokens]``: ``document <end> document <end> ...`` cut.

    Raises:
        ConfigError: when it does not fill a row.
    """
    end = () if end_id is None else (end_id,)
    whole = [token for document in corpus for token in (*document, *end)]
    count = len(whole) // row_tokens
    if not count:
        raise ConfigError(
            f"recovery training needs public text: {len(whole)} tokens do not fill a row of {row_tokens} (a provider "
            "started apart has none: use transport=process; or train no steps)"
        )
    return torch.tensor(whole[: count * row_tokens]).view(count, row_tokens)


def recover(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    rows: Tensor,
    phase: Phase,
    encode: Encode,
    homophones: Tensor,
    folder: Path | None = None,
) -> TrainingCost:
    """Train a student for one phase, or go on with the phase whose checkpoint lies in ``folder``.

    Args:
        student: trained in place: what asks for a gradient; keeps its device.
        teacher: the model as it was, on the same device.
        rows: plain ids of public text ``[n, length]``.
        phase: how.
        encode: plain ids into cipher ids.
        homophones: see ``Distillation``.
        folder: where the checkpoint lives; None keeps none. A phase that was killed goes on with equal results, one
            that is finished is not trained again.
    """
    if not phase.steps:
        return TrainingCost()
    optimisation = Optimisation(phase.learning_rate, max(1, phase.steps // 20), phase.steps, weight_decay=0.0)
    module = Distillation(student, teacher, homophones, phase.weights, optimisation)
    data, stopwatch = EncodedRows(rows, encode, phase), Stopwatch()
    callbacks: list[Callback] = [stopwatch, StepBar(f"{phase.name} recovery", phase.steps)]
    stored = None
    if folder is not None:
        checkpoint = ModelCheckpoint(
            folder, filename=phase.name, save_on_train_epoch_end=True, enable_version_counter=False
        )
        callbacks.append(checkpoint)
        stored = folder / f"{phase.name}.ckpt"
    device = next(student.parameters()).device
    with quietly():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=phase.precision,
            max_epochs=-(-phase.steps // data.stretch),
            reload_dataloaders_every_n_epochs=1,
            gradient_clip_val=1.0,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, data, ckpt_path=resumable(stored), weights_only=True)
    student.to(device)
    return TrainingCost(stopwatch.seconds, _flops(student, teacher, phase.steps * phase.batch * rows.shape[1]))


def _flops(student: PreTrainedModel, teacher: PreTrainedModel, tokens: int) -> float:
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad and p.ndim > 1)
    heads: list[int] = [model.get_output_embeddings().weight.numel() for model in (student, teacher)]
    bodies = training_flops(student, trained, tokens) + forward_flops(teacher, tokens)
    return bodies + (4.0 * heads[0] + 2.0 * heads[1]) * tokens
