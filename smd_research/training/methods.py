"""How a model is tuned: every parameter, LoRA adapters or the head alone, with DP-SGD or not; and on which machine."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee, check_epsilon
from smd_research.training.accounting import Spending, planned_spending, usual_delta
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
        label_epsilon: the client sends each class by randomised response with this epsilon; None: as it is.

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
    label_epsilon: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.checks <= self.steps or self.batch < 1:
            raise ConfigError(f"tuning: steps={self.steps}, batch={self.batch} are positive, checks lies in 1 .. steps")
        if self.pooling not in ("last", "mean") or self.head not in ("linear", "words"):
            raise ConfigError("tuning: pooling is last or mean, head is linear or words")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"tuning.patience={self.patience}: one or more, or null for none")
        for name, value, inside, words in (
            ("clip", self.clip, self.clip > 0, "it must be positive"),
            ("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "it must be positive and finite"),
            ("warmup", self.warmup, 0 <= self.warmup <= 1, "a share lies between 0 and 1"),
            ("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "it is 0 or more, and finite"),
        ):
            if not inside:
                raise ConfigError(f"tuning.{name}={value:g} is out of range: {words}")
        if self.label_epsilon is not None:
            check_epsilon(self.label_epsilon, "tuning.label_epsilon")

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

    Raises:
        ConfigError: for a value out of range; and as ``Tuning``.
    """

    rank: int
    alpha: float
    dropout: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.freeze_table:
            raise ConfigError(
                "tuning.freeze_table=false: adapters leave the table as it is; take tuning=full to train it"
            )
        if self.rank < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ConfigError(
                "tuning: rank is 1 or more, alpha positive and finite, dropout 0 or more and below 1, not "
                f"{self.rank}, {self.alpha:g} and {self.dropout:g}"
            )

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


@dataclass(frozen=True, kw_only=True)
class HeadAlone(Tuning):
    """The model stays as it is, and a head of its own learns to read it.

    Raises:
        ConfigError: for ``head=words``, which leaves nothing to train; and as ``Tuning``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head != "linear":
            raise ConfigError(f"tuning.head={self.head} leaves nothing to train where the model stays: use linear")

    def adapt(self, model: PreTrainedModel) -> Restore:
        model.requires_grad_(False)
        return lambda: model


@dataclass(frozen=True, kw_only=True)
class Private(Tuning):
    """DP-SGD (Abadi et al., CCS 2016): the gradient of each text is clipped, their sum over a random sample noised.

    Every text is in the sample of a step with probability ``batch / n``, by itself (Poisson), which is what the
    accountant supposes; shuffled batches would not do. ``clip`` bounds the gradient of one text. Embedding tables, of
    tokens as of positions, and the output matrix stay as they are. Nothing stops early and the last state is kept, so
    that the texts held out decide nothing; nothing is rounded below 32 bits.

    Attributes:
        epsilon: of the whole run, for one text tuned on.
        delta: of the same; None: ``n ** -1.1`` for ``n`` texts.

    Raises:
        ConfigError: for a value out of range.
    """

    epsilon: float
    delta: float | None
    freeze_table: bool = field(default=True, init=False)
    patience: int | None = field(default=None, init=False)
    precision: str = field(default="32-true", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_epsilon(self.epsilon, "tuning.epsilon")
        if not self.clip < math.inf:
            raise ConfigError(f"tuning.clip={self.clip:g} clips nothing: noise has to hide a text's whole gradient")
        if self.delta is not None and not 0 < self.delta < 1:
            raise ConfigError(f"tuning.delta={self.delta:g} is out of range: it lies between 0 and 1")

    def adapt(self, model: PreTrainedModel) -> Restore:
        restore = super().adapt(model)  # type: ignore[safe-super]  # of the class that comes after this one
        # Rows that a batch shares (tied matrices, positions) have no gradient of one text that hooks could tell.
        for table in [layer for layer in model.modules() if isinstance(layer, nn.Embedding)]:
            table.requires_grad_(False)
        head = model.get_output_embeddings()
        if head is not None:
            head.requires_grad_(False)
        return restore

    def spending(self, texts: int) -> Spending:
        """What a run on so many texts spends, and the noise that it takes.

        Raises:
            ConfigError: for a sample larger than the data, or a promise that cannot be kept; without opacus.
        """
        if self.batch > texts:
            raise ConfigError(
                f"tuning.batch={self.batch}: DP-SGD samples that many of {texts} texts on average: take at most {texts}"
            )
        delta = usual_delta(texts) if self.delta is None else self.delta
        return planned_spending(self.epsilon, delta, self.batch / texts, self.steps)

    def guarantee(self, texts: int, steps: int) -> Guarantee:
        """What a run that did so many steps on so many texts promises.

        Args:
            texts: that were tuned on.
            steps: that were done.
        """
        spent = self.spending(texts)
        epsilon = spent.epsilon(steps)
        return Guarantee(
            notion="DP of training",
            unit="text tuned on",
            epsilon=epsilon,
            delta=spent.delta,
            adjacency="a text more or less in the set that is tuned on",
            sensitivity=self.clip,
            clip=self.clip,
            composition=(
                f"all {steps} steps together, whatever the text's length; k texts at once cost k*{epsilon:.4g}, at a "
                f"delta more than e^((k-1)*{epsilon:.4g}) times as large"
            ),
            unit_epsilon=None,
            support="the same for every set of texts",
            assumptions=(
                f"Poisson samples at rate {spent.rate:.4g}, noise multiplier {spent.noise_multiplier:.4g}, composed by "
                f"{spent.accountant}; protects from who gets the tuned model, not from the provider; the number of "
                "texts is public; several texts of one user are promised less; options chosen by looking at results "
                "cost more; noise of 32-bit floating point"
            ),
            verified="accountant against an oracle, gradients of single texts against a loop, canaries",
            source="Abadi et al., CCS 2016",
        )


@dataclass(frozen=True, kw_only=True)
class DpSgd(Private, Full):
    """DP-SGD on every parameter of the body but its tables, and on the head."""


@dataclass(frozen=True, kw_only=True)
class DpLora(Private, Lora):
    """DP-SGD on low-rank adapters (Yu et al., arXiv 2110.06500), and on the head."""


@dataclass(frozen=True, kw_only=True)
class DpHead(Private, HeadAlone):
    """DP-SGD on a linear head that reads the public model's states (Tramèr and Boneh, ICLR 2021).

    Noise grows with the number of parameters that are trained, and here they are few.
    """


@dataclass(frozen=True)
class Machine:
    """Where Lightning trains: its own names, passed through.

    Attributes:
        accelerator: ``cpu``, ``gpu``, ...
        devices: how many, or which.
        strategy: ``auto``, ``ddp``, ...
    """

    accelerator: str = "cpu"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
