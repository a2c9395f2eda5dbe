"""A short training of a model on rows held in memory, its best state kept."""

import gc
from dataclasses import dataclass

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smd_research.training.causal_lm import OnRows
from smd_research.training.choice import KeepBest
from smd_research.training.quiet import StepBar, quietly

CHECKS = 8
"""How often the validation loss is looked at, besides before the first step."""


@dataclass(frozen=True)
class Drawn(Dataset[Tensor]):
    """Rows ``[n, length]`` in a drawn order: every row once before any comes again."""

    rows: Tensor
    order: Tensor

    @classmethod
    def of(cls, rows: Tensor, count: int, seed: int) -> "Drawn":
        """``count`` draws."""
        draws = torch.Generator().manual_seed(seed)
        passes = -(-count // len(rows))
        return cls(rows, torch.cat([torch.randperm(len(rows), generator=draws) for _ in range(passes)])[:count])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Tensor:
        """One row ``[length]``."""
        return self.rows[self.order[index]]


def fit(module: OnRows, training: Tensor, validation: Tensor, batch: int, seed: int, label: str) -> float:
    """Train for as many steps as the module's schedule has, and leave it in its best state.

    Args:
        module: trained in place; only what asks for a gradient changes. On the CPU afterwards.
        training: token ids ``[rows, length]``.
        validation: rows that decide which state is best ``[rows, length]``.
        batch: rows of a step.
        seed: of the order of the rows.
        label: what the bar says.

    Returns:
        The smallest validation loss in nats a token, that of the untrained module included.
    """
    steps, best = module.optimisation.steps, KeepBest()
    with quietly():
        trainer = lightning.Trainer(
            accelerator="gpu" if next(module.parameters()).is_cuda else "cpu",
            devices=1,
            precision="32-true",
            max_epochs=1,
            val_check_interval=max(1, steps // CHECKS),
            num_sanity_val_steps=-1,
            gradient_clip_val=1.0,
            callbacks=[best, StepBar(label, steps)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        rows = DataLoader(Drawn.of(training, steps * batch, seed), batch_size=batch)
        trainer.fit(module, rows, DataLoader(Drawn(validation, torch.arange(len(validation))), batch_size=batch))
    module.load_state_dict(best.state)
    # A trainer is a ring of parts: until it is collected, so are gradients and moments, three times the weights a run.
    module.zero_grad(set_to_none=True)
    module.trainer, trainer = None, None
    gc.collect()
    return best.loss
