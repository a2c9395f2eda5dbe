"""What partial attention measures, and the (position, token) dictionary it is a superposition of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from smd_research.models.attention import AttentionSpec, in_reach


class Rough(Protocol):
    """Keys and values of the whole vocabulary ``[tokens, kv_heads, head_dim]`` at an absolute position."""

    def keys(self, position: int) -> Tensor:
        """Keys at a position, rotated where the model does that."""

    def values(self, position: int) -> Tensor:
        """Values at a position."""


REORDERED = 2.0  # factor on tolerances where keys or queries were computed in another order of arithmetic


@dataclass(frozen=True)
class LayerTable:
    """Keys and values that tokens would have at a position of layer 0; calling it is ``at``.

    Attributes:
        at: from an absolute position and token ids, or None for the whole vocabulary, to keys (rotated) and values
            ``[tokens, kv_heads, head_dim]``.
        size: tokens of the vocabulary.
        alike: whether a token's value is the same at every position, as without learned ones.
        back: from queries ``[kv_heads, rows, head_dim]`` and an absolute position to what meets the keys of position 0
            as they meet those there; None where keys cannot be turned.
        rough: keys and values of the whole vocabulary at a position, computed in another order; None where ``at`` is
            asked for them too.
    """

    at: Callable[[int, Tensor | None], tuple[Tensor, Tensor]]
    size: int
    alike: bool = True
    back: Callable[[Tensor, int], Tensor] | None = None
    rough: Rough | None = None

    def __call__(self, position: int, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.at(position, tokens)

    def values(self, position: int) -> Tensor:
        """Values of the whole vocabulary ``[tokens, kv_heads, head_dim]``, rough where there are rough ones."""
        return self.at(position, None)[1] if self.rough is None else self.rough.values(position)


# A score is a dot product of fp32 vectors that both sides computed with different kernels. Measured differences stay
# below 2 units of eps * |q| * |k|; the factor leaves room for wider models.
_SCORE_UNITS = 6.0


@dataclass(frozen=True)
class Disturbance:
    """What a vault adds to its replies beside rounding; public by Kerckhoffs.

    Attributes:
        average: standard deviation of the Gaussian noise on each coordinate of ``A``.
        log_weight: that of the noise on ``l = m + log g``, in nats; with any, ``m`` stands for ``l`` and ``g`` is one.
        rounding: relative rounding of ``m``, ``g`` and ``A``.
    """

    average: float = 0.0
    log_weight: float = 0.0
    rounding: float = 0.0


UNDISTURBED = Disturbance()
SIGMAS = 6.0  # of Gaussian noise that a certificate grants


@dataclass(frozen=True)
class Measurements:
    """Layer-0 queries and the triples they were answered by, grouped by key/value head.

    A *row* is one (step, query head) pair; the query heads of one key/value head share a group. Symbols follow
    Confidential Prompting (arXiv 2409.19134, Theorem 1): ``m = max_p s_p``, ``g = sum_p exp(s_p - m)``,
    ``A = sum_p exp(s_p - m) v_p / g`` over the prompt's positions.

    Attributes:
        queries: scaled queries ``[kv_heads, rows, head_dim]``, in the dtype the vault computes in: the attacker
            repeats the vault's arithmetic, so 16-bit scores agree to the last bit too.
        maximum: ``m`` ``[kv_heads, rows]``.
        mass: ``g`` ``[kv_heads, rows]``.
        average: ``A`` ``[kv_heads, rows, head_dim]``.
        positions: absolute position of each row's query ``[rows]``.
        precision: relative rounding of ``A`` on the wire (machine epsilon of its dtype).
        value_precision: relative rounding of weights and values in the vault (machine epsilon of its dtype).
        score_precision: relative rounding of ``m`` and ``g``.
        spec: constants of layer 0's attention.
        first: absolute position of the first key.
        disturbance: what the vault adds to its replies.
        summed: whether ``m`` stands for ``l = m + log g`` and ``g`` is one.
    """

    queries: Tensor
    maximum: Tensor
    mass: Tensor
    average: Tensor
    positions: Tensor
    precision: float
    value_precision: float
    score_precision: float
    spec: AttentionSpec
    first: int = 0
    disturbance: Disturbance = UNDISTURBED
    summed: bool = False

    @property
    def names_maxima(self) -> bool:
        """Whether ``m`` is the score of one of the keys."""
        return not self.summed and self.disturbance.log_weight == 0

    @classmethod
    def from_steps(
        cls,
        queries: Tensor,
        maximum: Tensor,
        mass: Tensor,
        average: Tensor,
        *,
        positions: Tensor,
        kv_heads: int,
        spec: AttentionSpec,
        computed_in: torch.dtype = torch.float32,
        first: int = 0,
        disturbance: Disturbance = UNDISTURBED,
        summed: bool = False,
    ) -> "Measurements":
        """Group a decode's layer-0 exchange by key/value head.

        Args:
            queries: ``[steps, heads, head_dim]``, after rotary embedding and QK-norm.
            maximum: ``m`` ``[steps, heads]``.
            mass: ``g`` ``[steps, heads]``.
            average: ``A`` ``[steps, heads, head_dim]``, in the dtype it crossed in.
            positions: absolute positions of the queries ``[steps]``.
            kv_heads: key/value heads; query head ``h`` reads group ``h // (heads // kv_heads)``.
            spec: constants of layer 0's attention.
            computed_in: dtype of the vault's keys and values.
            first: absolute position of the vault's first key.
            disturbance: what the vault adds to its replies.
            summed: whether ``m`` stands for ``l``.
        """
        answered = maximum.isfinite().all(1) & (mass > 0).all(1) & average.isfinite().flatten(1).all(1)
        positions = positions[answered]
        queries, maximum, mass, average = queries[answered], maximum[answered], mass[answered], average[answered]
        return cls(
            queries=grouped(queries, kv_heads).to(computed_in) * spec.scale,
            maximum=grouped(maximum, kv_heads)[..., 0],
            mass=grouped(mass, kv_heads)[..., 0],
            average=grouped(average, kv_heads),
            positions=positions.repeat_interleave(queries.shape[1] // kv_heads),
            precision=max(torch.finfo(average.dtype).eps, disturbance.rounding),
            value_precision=torch.finfo(computed_in).eps,
            score_precision=max(torch.finfo(maximum.dtype).eps, torch.finfo(mass.dtype).eps),
            spec=spec,
            first=first,
            disturbance=disturbance,
            summed=summed,
        )

    def at(self, rows: Tensor) -> "Measurements":
        """The measurements of some rows of every key/value head, in that order."""
        return replace(
            self,
            queries=self.queries[:, rows],
            maximum=self.maximum[:, rows],
            mass=self.mass[:, rows],
            average=self.average[:, rows],
            positions=self.positions[rows],
        )

    def excess(self, keys: Tensor, position: int) -> Tensor:
        """``s - m`` for every token at one position.

        Args:
            keys: ``[tokens, kv_heads, head_dim]``.
            position: absolute position of the key.

        Returns:
            ``[kv_heads, rows, tokens]``; ``-inf`` where the query does not see the position. No true token is ever
            above zero, for ``m`` is the row's maximum over the prompt.
        """
        scores: Tensor = torch.matmul(self.queries, keys.to(self.queries).permute(1, 2, 0))
        if self.spec.softcap is not None:
            scores = scores.div_(self.spec.softcap).tanh_().mul_(self.spec.softcap)
        scores = scores.float()
        scores -= self.maximum[..., None]
        reached = in_reach(self.positions, torch.tensor(position), self.spec)
        if reached is not None:
            scores.masked_fill_(~reached[:, None], -math.inf)
        return scores

    def tolerance(self, keys: Tensor) -> Tensor:
        """Largest error of ``s - m`` that rounding explains ``[kv_heads, rows]``, given all keys of a position."""
        longest = torch.linalg.vector_norm(keys.float(), dim=-1).amax(0)
        bound: Tensor = torch.linalg.vector_norm(self.queries.float(), dim=-1) * longest[:, None]
        rounding = self.score_precision * (_SCORE_UNITS * bound + 2 * self.maximum.abs() + 1)
        coarse = self.disturbance.rounding * (self.maximum.abs() + 1)
        return rounding + coarse + SIGMAS * self.disturbance.log_weight


def grouped(x: Tensor, kv_heads: int) -> Tensor:
    """What was sent step by step ``[steps, heads(, d)]``, by key/value head ``[kv_heads, rows, d or 1]``."""
    steps, heads = x.shape[:2]
    split = x.float().reshape(steps, kv_heads, heads // kv_heads, -1).transpose(0, 1)
    return split.reshape(kv_heads, steps * (heads // kv_heads), -1).contiguous()


@dataclass(frozen=True)
class Candidates:
    """Tokens still possible at one position.

    Attributes:
        ids: token ids ``[tokens]``.
        excess: their ``s - m`` ``[rows, tokens]``, rows of all key/value heads one after another.
        values: their value vectors ``[tokens, kv_heads, head_dim]``.
    """

    ids: Tensor
    excess: Tensor
    values: Tensor

    def __len__(self) -> int:
        return self.ids.numel()

    def keep(self, chosen: Tensor) -> "Candidates":
        """The candidates of a boolean mask or index list."""
        return Candidates(self.ids[chosen], self.excess[:, chosen], self.values[chosen])

    def only(self, token: int) -> "Candidates":
        """The one candidate with this token id."""
        return self.keep(self.ids == token)

    def without(self, token: int) -> "Candidates":
        """All candidates but this token id."""
        return self.keep(self.ids != token)
