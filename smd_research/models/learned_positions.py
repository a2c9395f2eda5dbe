"""Layer 0 of learned positions: what any token has at any position, from one look at each token and each position.

With learned positions a token's state is ``e + p`` and layer 0 sees it through a norm, so that a table of the
vocabulary seems to need a product with the weights at every position. But all that the norm does beside a linear map is
to divide by one number: with ``L`` linear, ``k = L(e + p) / size(e + p) + rest`` and ``L(e + p) = L(e) + L(p)``. So the
vocabulary is multiplied once, and a position costs a dot product and a division for each token.

As for ``models.rotation`` nothing is taken from names: which norm it is, and whether it is one, is found by what comes
out of the layer at two positions. Where none explains it there is no such way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_PROBES = 24
_FAR = 7  # a second position to look at, or the last one
_TOLERANCE = 2e-6  # largest error of a key or value, relative to the largest; fp32

Layer0 = Callable[[Tensor], tuple[Tensor, Tensor]]
"""States ``[rows, width]`` to layer 0's keys and values ``[rows, kv_heads, head_dim]``."""

Embedded = Callable[[int, Tensor], Tensor]
"""A position and token ids to embedding outputs ``[tokens, width]``."""

Computed = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""A position and token ids to the keys and values that layer 0 has there ``[tokens, kv_heads, head_dim]``."""


@dataclass(frozen=True)
class Norm:
    """The number a norm divides by.

    Attributes:
        centred: whether the mean is taken off first (LayerNorm), or not (RMSNorm).
        eps: that is added to the mean square.
    """

    centred: bool
    eps: float

    def of(self, states: Tensor) -> Tensor:
        """What the size of states ``[rows, width]`` is taken of."""
        return states - states.mean(-1, keepdim=True) if self.centred else states

    def size(self, states: Tensor) -> Tensor:
        """The number of states ``[rows, width]``: ``[rows]``."""
        return (self.of(states).square().mean(-1) + self.eps).sqrt()


class LearnedPositions:
    """Layer 0's keys and values of the whole vocabulary at any position.

    Args:
        embedded: the embedding output.
        layer0: the layer.
        norm: its norm.
        vocabulary: ids of all tokens.
    """

    def __init__(self, embedded: Embedded, layer0: Layer0, norm: Norm, vocabulary: Tensor) -> None:
        self._embedded, self._layer0, self._norm = embedded, layer0, norm
        self._probes = vocabulary[torch.arange(_PROBES, device=vocabulary.device) * 7919 % len(vocabulary)]
        self._at_zero = embedded(0, self._probes).double()
        states = embedded(0, vocabulary)
        self._rest = layer0(states.new_zeros(1, states.shape[1]))
        self._linear = self._through(states)
        self._own = norm.of(states)
        self._squares = self._own.square().mean(-1)

    def _through(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The linear part of keys and values."""
        size = self._norm.size(states)[:, None, None]
        keys, values = self._layer0(states)
        return keys.sub_(self._rest[0]).mul_(size), values.sub_(self._rest[1]).mul_(size)

    def keys(self, position: int) -> Tensor:
        """Keys of the vocabulary at an absolute position ``[vocab, kv_heads, head_dim]``."""
        return self._moved(position, 0)

    def values(self, position: int) -> Tensor:
        """Values of the vocabulary at an absolute position ``[vocab, kv_heads, head_dim]``."""
        return self._moved(position, 1)

    @torch.inference_mode()
    def _moved(self, position: int, which: int) -> Tensor:
        step = (self._embedded(position, self._probes).double() - self._at_zero).mean(0, keepdim=True).to(self._own)
        own = self._norm.of(step)
        met = self._own @ own[0]
        size = (self._squares + (2 / own.shape[1]) * met + (own.square().mean() + self._norm.eps)).sqrt()
        return (self._linear[which] + self._through(step)[which]).div_(size[:, None, None]).add_(self._rest[which])


def norms_of(block: nn.Module) -> Iterator[Norm]:
    """Norms that a block's first may be: either kind, with each constant that its modules hold."""
    held = (getattr(module, name, None) for module in block.modules() for name in ("eps", "variance_epsilon"))
    for eps in dict.fromkeys(value for value in held if isinstance(value, float)):
        yield Norm(True, eps)
        yield Norm(False, eps)


def learned_positions(
    embedded: Embedded, layer0: Layer0, computed: Computed, block: nn.Module, vocabulary: Tensor, last: int
) -> LearnedPositions | None:
    """How layer 0 takes learned positions; None where no norm explains what comes out.

    Args:
        embedded: the embedding output.
        layer0: the layer, as if at position 0.
        computed: what it comes to in place; rotary layers are told apart by it.
        block: of the layer.
        vocabulary: ids of all tokens.
        last: position.
    """
    some = vocabulary[:_PROBES]
    for norm in norms_of(block):
        found = LearnedPositions(embedded, layer0, norm, some)
        if all(_explains(found, computed(place, some), place) for place in (min(_FAR, last), last)):
            return LearnedPositions(embedded, layer0, norm, vocabulary)
    return None


def _explains(found: LearnedPositions, real: tuple[Tensor, Tensor], place: int) -> bool:
    ours = found.keys(place), found.values(place)
    return all(
        one.dtype == torch.float32 and float((one - other).abs().max()) <= _TOLERANCE * float(other.abs().max())
        for one, other in zip(ours, real, strict=True)
    )
