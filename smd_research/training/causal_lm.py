"""Training a causal language model with Lightning."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Optimisation:
    """AdamW with linear warm-up and a cosine down to ``final`` times the peak.

    Attributes:
        learning_rate: peak learning rate.
        warmup: steps of linear warm-up.
        steps: total optimiser steps.
        final: last learning rate as a share of the peak.
        weight_decay: decoupled decay of matrices (norm gains are left alone).
        betas: moments of AdamW.
    """

    learning_rate: float
    warmup: int
    steps: int
    final: float = 0.02
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)

    def share(self, step: int) -> float:
        """Learning rate of ``step`` as a share of the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class OnRows(lightning.LightningModule, ABC):  # type: ignore[misc]  # Lightning is untyped here
    """Training of a model by a loss on rows of token ids."""

    def __init__(self, optimisation: Optimisation) -> None:
        super().__init__()
        self.optimisation = optimisation

    @abstractmethod
    def loss(self, ids: Tensor) -> Tensor:
        """Mean loss in nats of rows ``ids [rows, length]``."""

    def training_step(self, ids: Tensor) -> Tensor:
        """One batch."""
        loss = self.loss(ids)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, ids: Tensor) -> None:
        """Loss on rows of the validation split."""
        self.log("validation_loss", self.loss(ids), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and the schedule, stepped every batch."""
        return optimizers(self, self.optimisation)


class CausalLM(OnRows):
    """Next-token training of a stock Hugging Face causal language model."""

    def __init__(self, model: PreTrainedModel, optimisation: Optimisation) -> None:
        super().__init__(optimisation)
        self.model = model

    def loss(self, ids: Tensor) -> Tensor:
        """Mean next-token cross-entropy in nats of rows ``ids`` ``[rows, length]``."""
        logits = self.model(input_ids=ids[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def optimizers(
    module: torch.nn.Module,
    optimisation: Optimisation,
    behind: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] = lambda optimizer: optimizer,
) -> dict[str, Any]:
    """AdamW over the trainable parameters with its schedule, as Lightning takes them; stepped every batch.

    Args:
        module: whose parameters.
        optimisation: of AdamW.
        behind: puts something before the optimiser, which the schedule then knows it by.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": optimisation.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=optimisation.learning_rate,
        betas=optimisation.betas,
    )
    share: Callable[[int], float] = optimisation.share
    stepped = behind(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(stepped, share)
    return {"optimizer": stepped, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
