"""What a weight decomposition publishes of how a model is split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DecompositionParameters:
    """How it was chosen what stays secret.

    Attributes:
        targets: which linear layers keep a part.
        blocks: in which blocks; None: in all.
        rank: secret components of the fixed rule, and of each layer that a budget buys.
        rule: ``fixed``, ``energy`` or ``budget``.
        energy: share of the energy rule.
        budget: share of the budget rule.
        split: kind of split, e.g. ``svd``.
        bits: of an exposed weight; None: floats.
    """

    targets: str
    blocks: Sequence[int] | None
    rank: int
    rule: str
    energy: float
    budget: float
    split: str
    bits: int | None


@dataclass(frozen=True)
class SecretParts:
    """What that came to for a model.

    Attributes:
        products: module names of the linear layers of each fused product, in order, the head last.
        ranks: secret components of each linear layer, by module name; 0 where nothing is secret.
    """

    products: tuple[tuple[str, ...], ...]
    ranks: Mapping[str, int]
