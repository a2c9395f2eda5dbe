"""A linear lens: which tokens does a hidden state look like by itself, before any is tried?

Blocks add to what the embedding wrote, so that ridge regression from states to the directions of their tokens'
embeddings names most tokens far into a model. The lens is fitted to public text, which has the states that prompts
have, and to random tokens, which have the names and numbers that text lacks. The first token of a sequence attends to
itself alone, and in many models its state is far from all others (an attention sink, arXiv 2309.17453): it has a map of
its own. A lens proposes; whoever asks must check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from smd_research.core.seeds import generator
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel

TEXTS, TOKENS = 64, 64
"""Sequences that a lens is fitted to, half of them public text where there is so much, and tokens of each."""

OPENINGS = 1024
"""First tokens that its map of first positions is fitted to: all special ones, and random others."""

_RIDGE = 1e-5  # of the states' variance


@dataclass(frozen=True, repr=False, eq=False)
class RidgeMap:
    """An affine map, fitted by ridge regression.

    Attributes:
        centre: mean of the inputs ``[width]``.
        offset: mean of the targets ``[e]``.
        matrix: ``[width, e]``.
    """

    centre: Tensor
    offset: Tensor
    matrix: Tensor

    @classmethod
    def fitted(cls, inputs: Tensor, targets: Tensor, ridge: float) -> "RidgeMap":
        """The map from ``inputs [n, width]`` to ``targets [n, e]``; ``n * ridge`` is added to the second moments."""
        centre, offset = inputs.mean(0), targets.mean(0)
        centred = inputs - centre
        gram = centred.T @ centred + len(inputs) * ridge * torch.eye(inputs.shape[1], device=inputs.device)
        return cls(centre, offset, torch.linalg.solve(gram, centred.T @ (targets - offset)))

    def __call__(self, states: Tensor) -> Tensor:
        """Images ``[..., e]`` of ``states [..., width]``."""
        return (states - self.centre) @ self.matrix + self.offset


@dataclass(frozen=True, repr=False, eq=False)
class TokenLens:
    """How much states look like the vocabulary's entries.

    Attributes:
        first: map of a sequence's first state to the direction of its token's embedding.
        later: map of all others.
        middle: mean direction of the tokens that the latter was fitted to ``[e]``.
        directions: of the embeddings, seen from there: unit vectors ``[vocab, e]``.
    """

    first: RidgeMap
    later: RidgeMap
    middle: Tensor
    directions: Tensor

    def likeness(self, states: Tensor, *, first: bool) -> Tensor:
        """Cosines ``[n, vocab]`` of the images of states and the directions of all tokens.

        Args:
            states: as they were sent ``[n, width]``.
            first: whether they stand first in their sequence.
        """
        images = self.first(states) if first else self.later(states)
        return functional.normalize(images - self.middle, dim=-1) @ self.directions.T


@lru_cache(maxsize=2)
@torch.inference_mode()
def token_lens(
    bundle: Bundle, layer: int, texts: Sequence[tuple[int, ...]], sent: Callable[[Tensor], Tensor]
) -> TokenLens:
    """The lens of a public model's states after ``layer`` blocks; kept for the next cell of the process.

    Args:
        bundle: the public model.
        layer: number of blocks run; 0 looks at the embedding output.
        texts: token ids of public documents; with none of them the lens is fitted to random tokens alone.
        sent: what is made of states ``[rows, width]`` before they are seen, by identity.
    """
    vocab, device, rng = bundle.geometry.vocab, bundle.device, generator(0, "token lens")
    table = bundle.embedding[:vocab].float()
    around = functional.normalize(table - table.mean(0), dim=-1)

    def fitted(states: Tensor, ids: Tensor) -> RidgeMap:
        inputs = sent(states)
        return RidgeMap.fitted(inputs, around[ids], _RIDGE * float((inputs - inputs.mean(0)).var()))

    tokens = min(TOKENS, bundle.geometry.context)
    known = [text[:tokens] for text in texts[: TEXTS // 2] if len(text) > 1]
    strange = rng.integers(0, vocab, (TEXTS - len(known), tokens)).tolist()
    ids = [torch.tensor(text, device=device) for text in (*known, *strange)]
    states = torch.cat([one[1:] for one in states_after(bundle, layer, ids)])
    later = fitted(states, torch.cat([one[1:] for one in ids]))

    special = [i for i in sorted(bundle.special_ids) if i < vocab]
    openings = torch.tensor([*special, *rng.integers(0, vocab, OPENINGS).tolist()], device=device)
    engine = ExtensionEngine(bundle, layer)
    first = fitted(engine.extend(engine.start(), openings).hidden.float(), openings)
    return TokenLens(first, later, later.offset, functional.normalize(around - later.offset, dim=-1))


@torch.inference_mode()
def states_after(bundle: Bundle, layer: int, texts: Sequence[Tensor]) -> list[Tensor]:
    """States ``[tokens, width]`` in fp32 of each text ``[tokens]`` after ``layer`` blocks of a public model."""
    model = HookedModel(bundle, None, layer)
    return [
        model.forward(LocalAttention(), torch.arange(len(ids), device=ids.device), ids=ids[None])[0].float()
        for ids in texts
    ]
