"""How a model is tuned: every parameter, or LoRA adapters; and on which machine."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from smd_research.core.errors import ConfigError
from smd_research.training.classifier import Pooling

Restore = Callable[[], PreTrainedModel]
"""Gives back a stock model with what was learnt in its own weights."""


@dataclass(frozen=True, kw_only=True)
class Tuning(ABC):
    """How a provider tunes; everything that decides the result but for data, seed and hardware.

    Attributes:
        steps: optimiser steps.
        batch: texts of a step.
        learning_rate: peak learning rate.
        warmup: share of the steps with a rising learning rate.
        weight_decay: of matrices.
        clip: largest norm of the gradient.
        pooling: ``last`` or ``mean``: what the head reads.
        head: ``linear``: a head of its own; ``words``: the model's own logits of a word for each class.
        freeze_table: leave the embedding table, and an output matrix that is tied to it, as they are.
        checks: how often held-out texts are looked at; a checkpoint is written each time.
        patience: checks without a better loss after which tuning ends; None: never.
        precision: Lightning's name of the arithmetic, e.g. ``32-true`` or ``bf16-mixed``.

    Raises:
        ConfigError: for a value out of range.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    pooling: Pooling
    head: Literal["linear", "words"]
    freeze_table: bool
    checks: int
    patience: int | None
    precision: str

    def __post_init__(self) -> None:
        if not 1 <= self.checks <= self.steps or self.batch < 1:
            raise ConfigError(f"tuning: steps={self.steps}, batch={self.batch} are positive, checks lies in 1 .. steps")
        if self.pooling not in ("last", "mean") or self.head not in ("linear", "words"):
            raise ConfigError("tuning: pooling is last or mean, head is linear or words")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"tuning.patience={self.patience}: one or more, or null for none")

    @abstractmethod
    def adapt(self, model: PreTrainedModel) -> Restore:
        """Say what of a model is trained, in place; what is drawn comes from torch's global generator."""


@dataclass(frozen=True, kw_only=True)
class Full(Tuning):
    """Every parameter of the body is trained, and of the head where it is used."""

    def adapt(self, model: PreTrainedModel) -> Restore:
        model.requires_grad_(True)
        model.get_input_embeddings().requires_grad_(not self.freeze_table)
        return lambda: model


@dataclass(frozen=True, kw_only=True)
class Lora(Tuning):
    """Low-rank adapters on all linear layers of the body (LoRA, arXiv 2106.09685); the table is left as it is.

    Attributes:
        rank: of the adapters.
        alpha: their scale is ``alpha / rank``.
        dropout: of their input.
    """

    rank: int
    alpha: float
    dropout: float

    def adapt(self, model: PreTrainedModel) -> Restore:
        model.requires_grad_(False)
        transposed = any(isinstance(layer, Conv1D) for layer in model.modules())
        options = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides it: any number will do
            lora_dropout=self.dropout,
            target_modules="all-linear",
            fan_in_fan_out=transposed,
        )
        adapted = get_peft_model(model, options)
        return lambda: adapted.merge_and_unload()


@dataclass(frozen=True)
class Machine:
    """Where Lightning trains: its own names, passed through.

    Attributes:
        accelerator: ``cpu``, ``gpu``, ...
        devices: how many, or which.
        strategy: ``auto``, ``ddp``, ``fsdp``, ...
    """

    accelerator: str = "cpu"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
