"""Public pairs of a prompt and the public model's answer to it: what an inverter learns from.

Prompts are openings and windows of the public corpus, and text that the public model itself writes; the answer is
greedy. With logits, each step is read as PILS does (arXiv 2506.17090): a next-token law lies in an affine space of the
model's width ``d``, so the additive log-ratios of ``d + 1`` random token coordinates hold all of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smd_research.core.wrapper import BARE, Wrapper
from smd_research.models.attention import KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel

# Of the blocks, this share has prompts of the full length; the others any shorter one.
FULL_LENGTH = 0.75


@dataclass(frozen=True)
class Recipe:
    """What the pairs are made of and how the inverter is trained.

    Attributes:
        length: tokens of the longest prompt.
        outputs: generated tokens of an answer.
        windows: windows taken of each public document, its opening being the first.
        samples: prompts that the public model writes, for each public document.
        epochs: passes over the pairs.
        batch: pairs of a training step.
        learning_rate: peak learning rate.
        logits: read the law of every step too.
    """

    length: int
    outputs: int
    windows: int
    samples: int
    epochs: int
    batch: int
    learning_rate: float
    logits: bool


class Block(NamedTuple):
    """Pairs of equally long prompts.

    Attributes:
        prompts: token ids ``[b, n]``.
        answers: token ids ``[b, outputs]``, filled up with the end token behind an end.
        readings: log-ratios ``[b, outputs, d]``, zero for the first token, whose law the provider does not see.
    """

    prompts: Tensor
    answers: Tensor
    readings: Tensor | None


@dataclass(frozen=True)
class Coordinates:
    """Random token coordinates in which laws are read: ``kept [d]`` over ``reference``."""

    kept: Tensor
    reference: int

    @classmethod
    def draw(cls, vocabulary: int, width: int, rng: np.random.Generator) -> "Coordinates":
        """``width + 1`` different tokens, or all of a smaller vocabulary."""
        chosen = rng.permutation(vocabulary)[: width + 1]
        return cls(torch.from_numpy(chosen[1:].copy()), int(chosen[0]))

    def read(self, logits: Tensor) -> Tensor:
        """Additive log-ratios ``[..., d]`` of logits ``[..., vocab]``."""
        kept = self.kept.to(logits.device)
        return logits[..., kept].float() - logits[..., self.reference, None].float()


def blocks(
    bundle: Bundle,
    corpus: Sequence[Sequence[int]],
    recipe: Recipe,
    coordinates: Coordinates | None,
    rng: np.random.Generator,
    wrapper: Wrapper = BARE,
) -> list[Block]:
    """All pairs, in blocks of ``recipe.batch``; each prompt in a wrapper."""
    model = HookedModel(bundle)
    made = []
    for prompts in _windows(corpus, recipe, rng):
        asked = _wrapped(prompts.to(bundle.device), wrapper)
        made.append(_answered(bundle, model, asked, recipe.outputs, coordinates))
    for prompts in _written(bundle, model, corpus, recipe, rng):
        made.append(_answered(bundle, model, _wrapped(prompts, wrapper), recipe.outputs, coordinates))
    return made


def _wrapped(prompts: Tensor, wrapper: Wrapper) -> Tensor:
    """Prompts ``[b, n]`` with public tokens around each."""
    head, tail = (
        torch.tensor(end, dtype=torch.long, device=prompts.device).expand(len(prompts), -1)
        for end in (wrapper.head, wrapper.tail)
    )
    return torch.cat([head, prompts, tail], 1)


def _length(recipe: Recipe, rng: np.random.Generator) -> int:
    return recipe.length if rng.random() < FULL_LENGTH else int(rng.integers(1, recipe.length + 1))


def _windows(corpus: Sequence[Sequence[int]], recipe: Recipe, rng: np.random.Generator) -> Iterator[Tensor]:
    """Openings and windows of documents ``[b, n]``; a window keeps the document's first token in front."""
    wanted = [(index, turn > 0) for index in range(len(corpus)) for turn in range(recipe.windows)]
    order = rng.permutation(len(wanted))
    for start in range(0, len(order), recipe.batch):
        length = _length(recipe, rng)
        rows = []
        for index, moved in (wanted[i] for i in order[start : start + recipe.batch]):
            document = corpus[index]
            if len(document) < length:
                continue
            offset = int(rng.integers(0, len(document) - length + 1)) if moved else 0
            rows.append([document[0], *document[offset + 1 : offset + length]])
        if rows:
            yield torch.tensor(rows)


def _written(
    bundle: Bundle, model: HookedModel, corpus: Sequence[Sequence[int]], recipe: Recipe, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Prompts ``[b, n]`` drawn from the public model's own law, after a first token as documents have it."""
    count = len(corpus) * recipe.samples
    draws = torch.Generator(bundle.device).manual_seed(int(rng.integers(2**62)))
    for start in range(0, count, recipe.batch):
        size = min(recipe.batch, count - start)
        first = [corpus[int(index)][0] for index in rng.integers(0, len(corpus), size)]
        ids = torch.tensor(first, device=bundle.device)[:, None]
        attention = LocalAttention(KVStore(recipe.length))
        for position in range(_length(recipe, rng) - 1):
            where = torch.tensor([position], device=bundle.device)
            logits = model.forward(attention, where, ids=ids[:, -1:])[:, -1].float()
            ids = torch.cat([ids, torch.multinomial(torch.softmax(logits, -1), 1, generator=draws)], 1)
        yield ids


def _answered(
    bundle: Bundle, model: HookedModel, prompts: Tensor, outputs: int, coordinates: Coordinates | None
) -> Block:
    """The public model's greedy answers."""
    length = prompts.shape[1]
    attention = LocalAttention(KVStore(length + outputs))
    ends = torch.tensor(bundle.end_ids, dtype=torch.long, device=bundle.device)
    logits = model.forward(attention, torch.arange(length, device=bundle.device), ids=prompts, last_only=True)[:, -1]
    answers, readings = [logits.argmax(-1)], []
    for position in range(length, length + outputs - 1):
        where = torch.tensor([position], device=bundle.device)
        logits = model.forward(attention, where, ids=answers[-1][:, None])[:, -1]
        over = torch.isin(answers[-1], ends)
        answers.append(torch.where(over, answers[-1], logits.argmax(-1)))
        if coordinates is not None:
            readings.append(torch.where(over[:, None], 0.0, coordinates.read(logits)))
    read = None
    if coordinates is not None:
        unseen = torch.zeros(len(prompts), len(coordinates.kept), device=bundle.device)
        read = torch.stack([unseen, *readings], 1)
    # cloned outside the engine's inference mode, so that the inverter can learn from them
    return Block(prompts.clone(), torch.stack(answers, 1).clone(), read)
