"""The product of a linear layer with a few rows, as a batch of decoding streams has them.

Reading the weights takes the time of one row, and should take that of four; but a library that is asked for ``x Wᵀ``
with two to four rows packs ``Wᵀ`` first, which takes as long again. ``W xᵀ`` is the same numbers without that.
"""

import torch
from torch import Tensor, nn

_FEW = range(2, 5)


def product(layer: nn.Module, x: Tensor) -> Tensor:
    """The output ``[rows, out]`` of a linear layer, or of what stands in its place, for rows ``x [rows, in]``."""
    if len(x) not in _FEW or type(layer) is not nn.Linear:
        out: Tensor = layer(x)
        return out
    bias: Tensor | None = layer.bias
    columns = torch.mm(layer.weight, x.t()) if bias is None else torch.addmm(bias[:, None], layer.weight, x.t())
    return columns.t()
