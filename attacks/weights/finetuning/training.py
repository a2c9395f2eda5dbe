"""What the training attacks share: data, a search for the learning rate, one long run, and what it cost."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from attacks.base import WeightAttack
from attacks.weights.finetuning.text import Budget, TrainingRows, rows
from smd_research.boundary import AdversaryView
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.models.linears import linear_layers
from smd_research.training.causal_lm import CausalLM, Optimisation
from smd_research.training.short import fit


class Trainee:
    """A copy of the exposed model with something in it to train.

    Args:
        model: in float32; what is trained asks for a gradient, nothing else does.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def trainable(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def weights(self) -> Mapping[str, Tensor]:
        """The trained tensors by the names of the served model's ``state_dict``."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}


@dataclass(frozen=True, repr=False)
class TrainedModel:
    """A trainee after training at a rate for so many steps, and its loss on the rows held back."""

    trainee: Trainee
    loss: float
    rate: float
    steps: int


class FineTuning(WeightAttack):
    """Train on public text what the exposed part lacks.

    The learning rate is the one of ``learning_rates`` whose short run ends lowest on the rows held back; the long run
    keeps its best state by the same rows.

    Args:
        tokens: of public text, those held back included.
        steps: optimiser steps of the long run.
        batch: rows of a step.
        row_tokens: tokens of a packed row.
        validation: share of the rows held back.
        learning_rates: peak rates to choose from.
        search_steps: steps of each run of the search; None for whole runs.
        weight_decay: of AdamW.

    Raises:
        ConfigError: without a learning rate, or for a budget without a row to train on.
    """

    settles = "learning_rate"

    def __init__(
        self,
        tokens: int,
        steps: int,
        batch: int,
        row_tokens: int,
        validation: float,
        learning_rates: Sequence[float],
        search_steps: int | None,
        weight_decay: float,
    ) -> None:
        if not learning_rates or min(learning_rates) <= 0 or (search_steps is not None and search_steps < 1):
            raise ConfigError("attack: learning_rates holds at least one positive rate, search_steps is at least 1")
        self.budget = Budget(tokens, steps, batch, row_tokens, validation)
        self.learning_rates = tuple(learning_rates)
        self.search_steps = search_steps
        self.weight_decay = weight_decay

    @abstractmethod
    def trainee(self) -> Trainee:
        """A fresh trainee; what it draws comes from torch's global generator.

        Raises:
            NotApplicableError: when the public parameters or the model rule the method out.
        """

    def settle(self, value: float) -> None:
        """Take a learning rate that was found before instead of searching."""
        self.learning_rates = (value,)

    def control(self) -> Mapping[str, object] | None:
        """The same data and steps."""
        return asdict(self.budget)

    @property
    def protected(self) -> dict[str, int]:
        """Public rank of what is missing from each protected linear layer, by module name.

        Raises:
            NotApplicableError: when the deployment publishes no ranks, or keeps nothing secret.
        """
        secret = self.public.published(SecretParts)
        if secret is None:
            raise NotApplicableError(
                "needs the public ranks of the protected matrices, which the defense does not give"
            )
        found = {name: secret.ranks[name] for name in linear_layers(self.public.bundle) if secret.ranks.get(name)}
        if not found:
            raise NotApplicableError("no matrix is protected: there is nothing to restore")
        return found

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Search the learning rate, train, return the trained tensors.

        Raises:
            NotApplicableError: with less public text than ``tokens``, or where the method cannot be used.
        """
        seed, own = int(rng.integers(2**62)), rows(self.public, self.budget)
        trained = self.search(own, seed) if len(self.learning_rates) > 1 else None
        if trained is None or trained.steps < self.budget.steps:
            rate = trained.rate if trained else self.learning_rates[0]
            trained = self.train(own, rate, self.budget.steps, seed)
        facts = {
            "learning_rate": trained.rate,
            "validation_loss": trained.loss,
            "trainable_parameters": float(trained.trainee.trainable),
            "attack_tokens": float(self.budget.tokens),
        }
        return WeightGuess(trained.trainee.weights(), spent=Spent(steps=self.budget.steps), facts=facts)

    def search(self, own: TrainingRows, seed: int) -> TrainedModel:
        """The run of the search that ends lowest on the rows held back; where that is a whole run, none follows."""
        return min((self.tried(own, rate, seed) for rate in self.learning_rates), key=lambda one: one.loss)

    def tried(self, own: TrainingRows, rate: float, seed: int) -> TrainedModel:
        """A run of the search."""
        steps = min(self.search_steps or self.budget.steps, self.budget.steps)
        return self.train(own, rate, steps, seed)

    def train(self, own: TrainingRows, rate: float, steps: int, seed: int) -> TrainedModel:
        """One run from a fresh trainee."""
        optimisation = Optimisation(rate, max(1, steps // 20), steps, weight_decay=self.weight_decay)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trainee = self.trainee()
            label = f"{type(self).__name__}, learning rate {rate:g}"
            loss = fit(
                CausalLM(trainee.model, optimisation), own.training, own.validation, self.budget.batch, seed, label
            )
        return TrainedModel(trainee, loss, rate, steps)
