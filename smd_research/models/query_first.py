"""Let an attention module compute its queries first, and its keys and values only after they were handed over.

The stock module's forward runs twice: the first pass computes the queries alone (norms and rotation included, as the
family has them) and stops when they reach the attention function; the second computes keys and values alone. The
products are computed once each, the other's input is replaced by zeros.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from smd_research.models.families import Names


class QueriesTaken(Exception):
    """Raised by the attention function in the first pass: the queries are known, the rest can wait."""


class _Gated(nn.Module):
    """A projection that is computed in one of the two passes only."""

    def __init__(self, projection: nn.Linear, early: bool, gate: "_Gate") -> None:
        super().__init__()
        self.projection = projection
        self._early = early
        self._gate = gate

    def forward(self, x: Tensor) -> Tensor:
        if self._gate.early == self._early:
            out: Tensor = self.projection(x)
            return out
        return self._gate.zeros(x, self.projection.out_features)


class _Gate:
    """Which pass runs, and the zeros that stand for what the other one computes."""

    def __init__(self) -> None:
        self.early = False
        self._zeros: dict[tuple[Any, ...], Tensor] = {}

    def zeros(self, x: Tensor, features: int) -> Tensor:
        key = (*x.shape[:-1], features, x.dtype)
        if key not in self._zeros:
            self._zeros = {key: x.new_zeros(*x.shape[:-1], features), **dict(list(self._zeros.items())[:3])}
        return self._zeros[key]


def has_separate_projections(module: nn.Module, names: Names) -> bool:
    """Whether queries, keys and values come from projections of their own, of these names (none: they do not)."""
    return bool(names) and all(isinstance(getattr(module, name, None), nn.Linear | _Gated) for name in names)


def run_queries_first(module: nn.Module, names: Names, enter: Callable[[], None]) -> None:
    """Change an attention module (of a structural copy) so that its forward runs in two passes.

    Args:
        module: holds the projections.
        names: of the projections of queries, keys and values, in this order.
        enter: called when the module's forward begins.
    """
    gate = _Gate()
    for name in names:
        setattr(module, name, _Gated(getattr(module, name), name == names[0], gate))
    inner = module.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        enter()
        gate.early = True
        try:
            inner(*arguments, **options)
        except QueriesTaken:
            gate.early = False
            return inner(*arguments, **options)
        raise AssertionError("the attention module never reached its attention function")

    module.forward = forward
