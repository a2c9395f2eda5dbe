"""The product of a linear layer with a few rows, as a batch of decoding streams has them.

It takes as long as reading the weights, for four rows as for one, if the library goes through them once. MKL, which
torch asks for ``x Wᵀ`` in fp32 on x86, does for ``W xᵀ`` with two to four columns, and is slower at one column; beyond,
oneDNN does better. The numbers are the same but for the order of sums.
"""

import torch
from torch import Tensor, nn

_MOST_COLUMNS = 4
_MKL: bool = torch._C.has_mkl
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch._C._has_mkldnn else None


def product(layer: nn.Module, x: Tensor) -> Tensor:
    """The output ``[rows, out]`` of a linear layer, or of what stands in its place, for rows ``x [rows, in]``."""
    if type(layer) is not nn.Linear or not _MKL or x.dtype != torch.float32 or x.device.type != "cpu":
        out: Tensor = layer(x)
        return out
    rows = x.shape[0]
    weight, bias = layer.weight, _bias(layer)
    if rows > _MOST_COLUMNS:
        return layer(x) if _ONEDNN is None else _ONEDNN(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    columns = (x if rows > 1 else torch.cat([x, x])).t()
    out = torch.mm(weight, columns) if bias is None else torch.addmm(bias[:, None], weight, columns)
    return out[:, :rows].t().contiguous()


def _bias(layer: nn.Linear) -> Tensor | None:
    return layer.bias
