"""The denoiser of Split-and-Denoise: what would the model have answered without the client's own noise?

A small causal transformer reads, at each position, the state that came back, the clean embedding and the noise that was
added to it, and predicts the clean state. It is trained on public text, under the noise that is served.
"""

import gc
import math
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from smd_research.core.errors import ConfigError
from smd_research.training.causal_lm import Optimisation, optimizers
from smd_research.training.choice import KeepBest
from smd_research.training.quiet import StepBar, quietly

_HELD_BACK = 8
_CHECKS = 8


@dataclass(frozen=True, repr=False)
class NoisyRows:
    """Texts with and without noise, ``[texts, length, width]`` each; ``mask [texts, length]`` is 1 where there is text.

    Attributes:
        returned: states that came back for noisy embeddings.
        clean: embeddings.
        noise: what was added to them, clipping included.
        target: states without noise.
        mask: texts end at different places.
    """

    returned: Tensor
    clean: Tensor
    noise: Tensor
    target: Tensor
    mask: Tensor

    def split(self) -> tuple[TensorDataset, TensorDataset]:
        """Texts to train on, and every eighth to decide which state is best."""
        held_back = torch.arange(len(self.mask)) % _HELD_BACK == 0
        parts = (self.returned, self.clean, self.noise, self.target, self.mask)
        return TensorDataset(*(p[~held_back] for p in parts)), TensorDataset(*(p[held_back] for p in parts))


class Denoiser(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """Predicts clean states; untrained, it leaves what came back as it is.

    Args:
        mean: of clean states ``[width]``.
        deviation: their standard deviation ``[width]``: errors are counted in its units.
        scale: of the embedding, a number.
        inner: width of the transformer.
        layers: of the transformer.
        optimisation: of the training.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mean: Tensor, deviation: Tensor, scale: float, inner: int, layers: int, optimisation: Optimisation
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp_min(1e-6))
        self._scale, self._inner, self.optimisation = scale, inner, optimisation
        width = len(mean)
        self.readers = nn.ModuleList(nn.Linear(width, inner, bias=False) for _ in range(3))
        heads = max(1, inner // 32)
        layer = nn.TransformerEncoderLayer(inner, heads, 4 * inner, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(inner, width)
        self.gain = nn.Parameter(torch.ones(width))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, returned: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
        """Clean states ``[b, n, width]``, each from its own position and those before.

        Args:
            returned: states that came back ``[b, n, width]``.
            clean: embeddings ``[b, n, width]``.
            noise: what was added to them ``[b, n, width]``.
        """
        seen = (returned - self.mean) / self.deviation
        read = [
            reader(part)
            for reader, part in zip(self.readers, (seen, clean / self._scale, noise / self._scale), strict=True)
        ]
        hidden = torch.stack(read).sum(0) + _places(returned.shape[1], self._inner).to(returned)
        mask = nn.Transformer.generate_square_subsequent_mask(returned.shape[1], device=returned.device)
        hidden = self.body(hidden, mask=mask, is_causal=True)
        found: Tensor = self.mean + self.deviation * (self.gain * seen + self.out(hidden))
        return found

    def loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Mean squared error in units of the clean states' variance."""
        returned, clean, noise, target, mask = batch
        error = ((self(returned, clean, noise) - target) / self.deviation) ** 2
        mean: Tensor = (error.mean(-1) * mask).sum() / mask.sum()
        return mean

    def training_step(self, batch: tuple[Tensor, ...]) -> Tensor:
        """One batch of texts."""
        return self.loss(batch)

    def validation_step(self, batch: tuple[Tensor, ...]) -> None:
        """Error on the texts held back."""
        self.log("validation_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule."""
        return optimizers(self, self.optimisation)


def _places(count: int, width: int) -> Tensor:
    """Sinusoidal positions ``[count, width]`` (Vaswani et al. 2017, 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    angles = torch.arange(count)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def train_denoiser(
    rows: NoisyRows, seed: int, *, steps: int, batch: int, inner: int, layers: int, learning_rate: float
) -> Denoiser:
    """Train on rows held in memory; torch's global generator is left as it was.

    Args:
        rows: public texts, noised as what is served.
        seed: of initialisation and order.
        steps: of the optimiser.
        batch: texts of a step.
        inner: width of the transformer, a multiple of 32.
        layers: of the transformer.
        learning_rate: peak of AdamW's.

    Returns:
        The state of the smallest error on texts held back, the untrained one included; on the CPU, in evaluation mode.

    Raises:
        ConfigError: for a single row, of which none could be held back.
    """
    if len(rows.mask) < 2:
        raise ConfigError("a denoiser learns from two noisy texts or more: raise defense.documents or defense.draws")
    training, validation = rows.split()
    there = rows.target[rows.mask.bool()]
    best = KeepBest()
    with quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plan = Optimisation(learning_rate, max(1, steps // 20), steps)
        scale = float(rows.clean[rows.mask.bool()].std())
        module = Denoiser(there.mean(0), there.std(0), scale, inner, layers, plan)
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            val_check_interval=max(1, steps // _CHECKS),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=-1,
            gradient_clip_val=1.0,
            callbacks=[best, StepBar("denoiser", steps)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(
            module,
            DataLoader(training, batch_size=batch, shuffle=True),
            DataLoader(validation, batch_size=batch),
        )
    module.load_state_dict(best.state)
    module.zero_grad(set_to_none=True)
    module.trainer, trainer = None, None
    gc.collect()
    module.eval().requires_grad_(False)
    return module
