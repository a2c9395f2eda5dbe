"""A model as the protocol runs it: fused products with their secret and their exposed halves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.boundary.messages import ExposedLayer
from smd_research.defenses.slip.decomposed import Decomposed
from smd_research.defenses.slip.products import Product, bias_of
from smd_research.defenses.slip.rounds import Secret
from smd_research.mechanisms.integers.fixed_point import quantise_rows
from smd_research.models.bundle import Bundle

LAYER_BYTES = 64 * 2**20
"""Exposed weights that would make a longer message go in several."""


@dataclass(frozen=True, repr=False)
class Exposed:
    """What the device holds of one product.

    Attributes:
        weights: integers (int16 or int8), or floats (fp32), ``[m, n]``.
        scale: of each row ``[m]`` (fp32).
    """

    weights: Tensor
    scale: Tensor


@dataclass(frozen=True, repr=False)
class Halves:
    """The two halves of every product, by its number.

    Attributes:
        products: in order, the head last.
        secrets: what stays.
        exposed: what goes.
        public: the model as the device holds it.
        ranks: secret components by module name.
    """

    products: tuple[Product, ...]
    secrets: Mapping[int, Secret]
    exposed: Mapping[int, Exposed]
    public: Bundle
    ranks: Mapping[str, int]

    @property
    def integers(self) -> dict[int, Tensor]:
        """Exposed weights ``[m, n]`` by product."""
        return {number: exposed.weights for number, exposed in self.exposed.items()}

    def messages(self) -> Iterator[ExposedLayer]:
        """The exposed weights as they cross."""
        for number, exposed in self.exposed.items():
            rows = max(1, LAYER_BYTES // (exposed.weights.element_size() * exposed.weights.shape[1]))
            for weights, scale in zip(
                torch.split(exposed.weights, rows), torch.split(exposed.scale, rows), strict=True
            ):
                yield ExposedLayer(weights, scale, number)


def parts_of(bundle: Bundle, products: Sequence[Product], decomposed: Decomposed, bits: int | None) -> Halves:
    """Arrange a decomposed model by products; the head is exposed whole, rounded like the rest.

    Args:
        bundle: the whole model.
        products: its fused products.
        decomposed: its two parts.
        bits: of an exposed weight; None keeps floats.
    """
    secrets = {product.number: _secret(bundle, product, decomposed) for product in products}
    exposed = {product.number: _exposed(bundle, product, decomposed, bits) for product in products}
    return Halves(tuple(products), secrets, exposed, decomposed.exposed, decomposed.ranks)


def _secret(bundle: Bundle, product: Product, decomposed: Decomposed) -> Secret:
    splits = [decomposed.splits[name] for name in product.layers if name in decomposed.splits]
    right = left = None
    if any(one.rank for one in splits):
        right = torch.cat([one.right for one in splits])
        left = _side_by_side([one.left for one in splits])
    return Secret(product, right, left, bias_of(bundle.model, product))


def _exposed(bundle: Bundle, product: Product, decomposed: Decomposed, bits: int | None) -> Exposed:
    found = []
    for name in product.layers:
        if name not in decomposed.splits:  # the head
            weight = bundle.model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            whole = weight.detach().float()
            rounded = None if bits is None else quantise_rows(whole, bits)
        else:
            whole = decomposed.splits[name].exposed
            rounded = decomposed.quantised[name] if decomposed.quantised is not None else None
        if rounded is None:
            found.append(Exposed(whole, torch.ones(len(whole), device=whole.device)))
        else:
            found.append(Exposed(rounded.integers, rounded.scale))
    return Exposed(torch.cat([one.weights for one in found]), torch.cat([one.scale for one in found]))


def _side_by_side(lefts: Sequence[Tensor]) -> Tensor:
    """Matrices ``[m_i, k_i]`` along a diagonal, transposed: ``[K, m]``, zero elsewhere."""
    whole = lefts[0].new_zeros(sum(one.shape[1] for one in lefts), sum(one.shape[0] for one in lefts))
    row = column = 0
    for one in lefts:
        whole[row : row + one.shape[1], column : column + one.shape[0]] = one.T
        row, column = row + one.shape[1], column + one.shape[0]
    return whole
