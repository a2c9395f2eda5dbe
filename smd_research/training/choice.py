"""Learning to choose one of several: a small network scores each alternative, a softmax over them decides."""

import copy
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from smd_research.training.quiet import quietly

_VALIDATION = 5


class ChoiceModel(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Scores alternatives by their features.

    The last layer starts at zero: an untrained model finds all alternatives equally likely.

    Args:
        mean: of the features ``[features]``.
        deviation: standard deviation of the features ``[features]``.
        width: hidden units.
        learning_rate: of AdamW.
        decay: weight decay.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, width: int, learning_rate: float, decay: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp_min(1e-6))
        self.hidden = nn.Linear(len(mean), width)
        self.out = nn.Linear(width, 1, bias=False)
        self.direct = nn.Linear(len(mean), 1, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.direct.weight)
        self._learning_rate, self._decay = learning_rate, decay

    def forward(self, features: Tensor) -> Tensor:
        """Log weights ``[..., alternatives]`` of features ``[..., alternatives, features]``."""
        x = ((features - self.mean) / self.deviation).clamp(-8, 8)
        scores: Tensor = self.direct(x) + self.out(torch.tanh(self.hidden(x)))
        return scores[..., 0]

    def loss(self, features: Tensor, right: Tensor) -> Tensor:
        """Mean negative log probability of the right alternatives ``[sets]``."""
        return nn.functional.cross_entropy(self(features), right)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One batch of sets."""
        return self.loss(*batch)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Loss on the sets held back."""
        self.log("validation_loss", self.loss(*batch))

    def configure_optimizers(self) -> Any:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self._learning_rate, weight_decay=self._decay)


class KeepBest(lightning.Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Keeps the weights of the smallest validation loss, those of the untrained model included."""

    def __init__(self) -> None:
        self.loss = float("inf")
        self.state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare."""
        loss = float(trainer.callback_metrics["validation_loss"])
        if loss < self.loss:
            self.loss, self.state = loss, copy.deepcopy(pl_module.state_dict())


def train_choice(
    features: Tensor,
    right: Tensor,
    seed: int,
    *,
    epochs: int = 40,
    width: int = 16,
    learning_rate: float = 1e-2,
    decay: float = 1e-2,
) -> ChoiceModel:
    """Train on sets of alternatives, every fifth of them held back to decide when to stop.

    Args:
        features: ``[sets, alternatives, features]``.
        right: index of the right alternative of each set ``[sets]``.
        seed: of initialisation and order; torch's global generator is left as it was.
        epochs: at most.
        width: hidden units.
        learning_rate: of AdamW.
        decay: weight decay.

    Returns:
        The model with the smallest validation loss, in evaluation mode. It is the untrained one, which finds all
        alternatives equally likely, where nothing could be learnt.
    """
    held_back = torch.arange(len(features)) % _VALIDATION == 0
    flat = features[~held_back].flatten(0, 1)
    with quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ChoiceModel(flat.mean(0), flat.std(0), width, learning_rate, decay)
        best = KeepBest()
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            num_sanity_val_steps=-1,
            callbacks=[best],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        training = TensorDataset(features[~held_back], right[~held_back])
        validation = TensorDataset(features[held_back], right[held_back])
        trainer.fit(
            model,
            DataLoader(training, batch_size=32, shuffle=True),
            DataLoader(validation, batch_size=max(1, len(validation))),
        )
    model.load_state_dict(best.state)
    model.eval()
    return model
