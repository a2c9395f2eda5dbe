"""Linear layers that share one product: the first to be asked runs it, the others take what is theirs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from smd_research.defenses.slip.products import Product
from smd_research.models.bundle import Bundle
from smd_research.models.structure import sharing_copy


class FusedProduct:
    """One fused product and the outputs of it that were not asked for yet.

    Args:
        product: whose layers they are.
        run: plain inputs ``[rows, n]`` to outputs ``[rows, m]``.
    """

    def __init__(self, product: Product, run: Callable[[Tensor], Tensor]) -> None:
        self._product = product
        self._run = run
        self._source: Tensor | None = None
        self._pending: dict[int, Tensor] = {}

    def output(self, index: int, x: Tensor) -> Tensor:
        """The output ``[..., m_i]`` of layer ``index`` for inputs ``[..., n]``."""
        if self._source is not x or index not in self._pending:
            y = self._run(x.reshape(-1, x.shape[-1])).to(x.dtype).view(*x.shape[:-1], -1)
            self._pending = dict(enumerate(torch.split(y, list(self._product.heights), -1)))
            self._source = x
        piece = self._pending.pop(index)
        if not self._pending:
            self._source = None
        return piece


class Stand(nn.Module):
    """Stands in a model in place of one layer of a fused product."""

    def __init__(self, fused: FusedProduct, index: int) -> None:
        super().__init__()
        self._fused = fused
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        """``[..., n]`` to ``[..., m_i]``."""
        return self._fused.output(self._index, x)

    def __deepcopy__(self, memo: object) -> Self:
        # a structural copy of the model runs the very same product
        return self


def stands(product: Product, run: Callable[[Tensor], Tensor]) -> dict[str, nn.Module]:
    """What takes the place of a product's layers, by module name."""
    fused = FusedProduct(product, run)
    return {name: Stand(fused, index) for index, name in enumerate(product.layers)}


def with_modules(bundle: Bundle, modules: Mapping[str, nn.Module]) -> Bundle:
    """A bundle with other modules in some places; all other tensors are shared, the given one stays untouched."""
    model = sharing_copy(bundle.model)
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)
    return replace(bundle, model=model)
