"""An adapter on the subspaces that an exposed residual gives away."""

from typing import Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from smd_research.mechanisms.decomposition.hidden_subspace import hidden_directions
from smd_research.models.linears import weight_of


class Adapted(nn.Module):
    """A frozen linear layer and a trained low-rank part, ``y = W^D x + left core right x``.

    The sides that the residual shows are fixed, the unknown one is trained from zero, so that training starts at the
    exposed model and the layer is linear in what is trained.

    Args:
        base: the exposed layer.
        left: directions of the output side ``[m, k]``; None where they are unknown, then trained.
        right: directions of the input side ``[k, n]``; the same.
        rank: ``k``.

    Raises:
        ValueError: when neither side is known.
    """

    left: Tensor
    core: Tensor | None
    right: Tensor

    def __init__(self, base: nn.Module, left: Tensor | None, right: Tensor | None, rank: int) -> None:
        super().__init__()
        if left is None and right is None:
            raise ValueError("the residual shows neither side")
        self.base = base
        weight = weight_of(base)
        m, n = weight.shape
        self._place("left", left, weight.new_zeros(m, rank))
        self._place("right", right, weight.new_zeros(rank, n))
        square = left is not None and right is not None
        self.core = nn.Parameter(weight.new_zeros(rank, rank)) if square else None

    @classmethod
    def of(cls, base: nn.Module, rank: int) -> Self:
        """The adapter of an exposed layer that lacks ``rank`` components."""
        weight = weight_of(base).detach()
        left, right = hidden_directions(weight, rank)
        known = [None if side is None else side.to(weight) for side in (left, right)]
        return cls(base, known[0], None if known[1] is None else known[1].T.contiguous(), rank)

    def _place(self, name: str, known: Tensor | None, unknown: Tensor) -> None:
        if known is None:
            self.register_parameter(name, nn.Parameter(unknown))
        else:
            self.register_buffer(name, known)

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``[..., n]`` to ``[..., m]``."""
        inner = x @ self.right.T
        if self.core is not None:
            inner = inner @ self.core.T
        y: Tensor = self.base(x) + inner @ self.left.T
        return y

    @torch.no_grad()
    def merged(self) -> Tensor:
        """The whole weight, in the layout of the layer's ``state_dict``."""
        inner = self.right if self.core is None else self.core @ self.right
        weight = weight_of(self.base) + self.left @ inner
        return weight.T.contiguous() if isinstance(self.base, Conv1D) else weight
