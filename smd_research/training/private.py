"""DP-SGD in Lightning's loop: gradients of single texts by Opacus, clipped, summed, noised; one step a Poisson sample.

Opacus' own engine wraps model, optimiser and loader to its taste. Here only three parts of it are used: the hooks that
keep each text's gradient, the optimiser that clips and adds noise, and the accountant. The samples are drawn by
:func:`smd_research.training.buckets.sampled`, once for the whole run, so that a run that was killed goes on with equal
results; optimisation is manual, since a sample is worked on in portions that fit into memory, and an empty one is a
step as well: one of noise alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from smd_research.core.errors import UnsupportedModelError
from smd_research.data.texts import Labelled, Readable
from smd_research.training.accounting import Spending
from smd_research.training.buckets import PlannedTexts
from smd_research.training.causal_lm import CausalLM, optimizers
from smd_research.training.classifier import Classifier

HELD = 2**27
"""Numbers in the gradients of single texts that are held at once: half a gigabyte."""
_TOLERANCE = 1e-3  # of the largest gradient of a parameter, by hooks and by a loop


def text_losses(module: Classifier | CausalLM, batch: Labelled) -> Tensor:
    """The loss of each text in nats ``[rows]``: of its class, or the mean over its next tokens.

    Args:
        module: what classifies, or predicts the next token.
        batch: texts padded on the right.
    """
    ids, lengths, labels = batch
    if isinstance(module, Classifier):
        return nn.functional.cross_entropy(module(ids, lengths).float(), labels, reduction="none")
    logits = module.model(input_ids=ids[:, :-1], use_cache=False).logits.float()
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    counted = torch.arange(1, ids.shape[1], device=ids.device) < lengths[:, None]
    return (losses * counted).sum(1) / counted.sum(1).clamp(min=1)


class GradientsOfTexts:
    """Opacus' hooks on a module: after a backward pass ``parameter.grad_sample`` is ``[rows, *shape]``.

    Args:
        module: stays as it is but for the hooks; ``remove`` takes them away.
    """

    def __init__(self, module: nn.Module) -> None:
        from opacus.grad_sample import GradSampleHooks

        self._module = module
        self._hooks = GradSampleHooks(module, loss_reduction="sum")

    def remove(self) -> None:
        """Leave nothing behind."""
        self._hooks.cleanup()

    def check(self, batch: Labelled) -> None:
        """Hold the gradient of each text against that of a pass of its own.

        Args:
            batch: a few texts of equal length.

        Raises:
            UnsupportedModelError: where they differ, or a parameter has none: clipping would protect nothing.
        """
        assert isinstance(self._module, Classifier | CausalLM)
        trained = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        with _no_dropout(self._module):
            torch.autograd.backward(text_losses(self._module, batch).sum())
            found = {name: getattr(p, "grad_sample", None) for name, p in trained.items()}
            self._forget(trained)
            self._hooks.disable_hooks()
            for row in range(len(batch[0])):
                alone = (batch[0][row, None], batch[1][row, None], batch[2][row, None])
                torch.autograd.backward(text_losses(self._module, alone).sum())
                for name, parameter in trained.items():
                    self._compare(name, found[name], parameter, row)
                    parameter.grad = None
            self._hooks.enable_hooks()

    @staticmethod
    def _compare(name: str, found: object, parameter: nn.Parameter, row: int) -> None:
        true = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if not isinstance(found, Tensor) or not torch.allclose(
            found[row], true, rtol=_TOLERANCE, atol=_TOLERANCE * float(true.abs().max()) + 1e-8
        ):
            raise UnsupportedModelError(f"the gradient of a single text is not known for {name}: DP-SGD cannot clip it")

    @staticmethod
    def _forget(trained: dict[str, nn.Parameter]) -> None:
        for parameter in trained.values():
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus' own


@contextmanager
def _no_dropout(module: nn.Module) -> Iterator[None]:
    """Dropout draws for a batch what it would not draw for each text of it."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Dropout)]
    shares = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, share in zip(layers, shares, strict=True):
            layer.p = share


@dataclass(frozen=True)
class Portions(Dataset[list[Labelled]]):
    """Samples, each in portions of at most so many texts of about equal length; none where the sample is empty.

    Attributes:
        texts: all that may be sampled.
        plan: the texts of each step.
        at_once: texts of a portion.
    """

    texts: Readable
    plan: Sequence[NDArray[np.int64]]
    at_once: int

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> list[Labelled]:
        """One sample."""
        rows = self.plan[index]
        rows = rows[np.argsort(self.texts.lengths[rows], kind="stable")]
        return [self.texts.batch(rows[at : at + self.at_once]) for at in range(0, len(rows), self.at_once)]


class SampledTexts(PlannedTexts):
    """The steps of a run of DP-SGD; see :class:`~smd_research.training.buckets.PlannedTexts`.

    Attributes:
        at_once: texts of a portion.
    """

    at_once: int = 1

    def batches(self, texts: Readable, plan: Sequence[NDArray[np.int64]]) -> DataLoader[Any]:
        """Samples, as the plan says."""
        return DataLoader(Portions(texts, plan, self.at_once), batch_size=None, shuffle=False)


class PrivateLearner(lightning.LightningModule):  # type: ignore[misc]  # Lightning is untyped here
    """DP-SGD on a classifier, or on a predictor of the next token.

    Args:
        module: what is trained, in place; ``release`` leaves it as Opacus found it.
        spending: noise and rate.
        clip: largest norm of one text's gradient.
        batch: texts of a sample on average; the noisy sum is divided by it, not by the sample's own size.

    Raises:
        UnsupportedModelError: where the gradients of single texts are not those that a loop has.
    """

    def __init__(self, module: Classifier | CausalLM, spending: Spending, clip: float, batch: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self._spending, self._clip, self._batch = spending, clip, batch
        self._gradients = GradientsOfTexts(module.train())
        self._gradients.check(_public_texts(module))
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self.at_once = max(1, HELD // trained)

    def configure_optimizers(self) -> dict[str, Any]:
        """The module's optimiser, behind clip and noise, and its schedule."""
        from opacus.optimizers import DPOptimizer

        def noisy(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
            made: torch.optim.Optimizer = DPOptimizer(
                optimizer,
                noise_multiplier=self._spending.noise_multiplier,
                max_grad_norm=self._clip,
                expected_batch_size=self._batch,
            )
            return made

        return optimizers(self.module, self.module.optimisation, noisy)

    def training_step(self, sample: list[Labelled]) -> None:
        """One step: gradients portion by portion, then noise once."""
        stepped = self.optimizers()
        inner = stepped.optimizer
        for portion in sample[:-1]:
            inner.signal_skip_step(True)
            self._backward(portion)
            inner.step()
            inner.zero_grad(set_to_none=True)
        if sample:
            self._backward(sample[-1])
        else:
            for parameter in inner.params:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        stepped.step()
        inner.zero_grad(set_to_none=True)
        self.lr_schedulers().step()

    def _backward(self, portion: Labelled) -> None:
        self.manual_backward(text_losses(self.module, portion).sum())

    def release(self) -> None:
        """Leave no hooks and no gradients behind."""
        self._gradients.remove()
        for parameter in self.module.parameters():
            parameter.grad = None
            if hasattr(parameter, "summed_grad"):
                del parameter.summed_grad


def _public_texts(module: Classifier | CausalLM) -> Labelled:
    """Three texts of drawn tokens, for the check of gradients: nothing private is looked at."""
    table = module.model.get_input_embeddings().weight
    ids = torch.randint(len(table), (3, 5), generator=torch.Generator().manual_seed(0)).to(table.device)
    return ids, torch.full((3,), 5, device=table.device), torch.zeros(3, dtype=torch.long, device=table.device)
