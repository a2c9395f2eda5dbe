"""Greedy decoding of batches of equally long prompts, by the keeper of a weight decomposition or by a plain model."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from smd_research.models import Bundle


class BatchRunner(Protocol):
    """What decodes batches."""

    def start(self, max_new_tokens: int) -> None:
        """Begin a request."""

    def forward(self, ids: Tensor) -> Tensor:
        """Run new tokens ``[B, rows]``: logits of the last row ``[B, 1, vocab]``."""


def random_prompts(bundle: Bundle, batch: int, tokens: int, seed: int) -> Tensor:
    """Token ids ``[B, tokens]``, special ones left out."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, bundle.geometry.vocab, (batch, tokens), generator=generator)


def steps(runner: BatchRunner, prompts: Tensor, new: int) -> Iterator[Tensor]:
    """Decode greedily.

    Args:
        runner: whoever decodes.
        prompts: ``[B, tokens]``.
        new: tokens generated for each.

    Yields:
        Logits ``[B, vocab]`` of each step.
    """
    runner.start(new)
    feed = prompts
    for _ in range(new):
        logits = runner.forward(feed)[:, -1]
        yield logits
        feed = logits.argmax(-1, keepdim=True)
