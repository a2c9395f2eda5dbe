"""A model as the protocol runs it: fused products with their secret and their exposed halves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.boundary.messages import ExposedLayer
from smd_research.core.seeds import generator
from smd_research.defenses.slip.products import Product, bias_of
from smd_research.defenses.slip.rounds import Secret
from smd_research.mechanisms.decomposition.splits import Kind, split
from smd_research.mechanisms.integers.fixed_point import quantise_rows
from smd_research.models.bundle import Bundle
from smd_research.models.linears import weight_of, with_weights

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
        ranks: secret components by module name, in the order of the model; 0 where nothing is secret.
    """

    products: tuple[Product, ...]
    secrets: Mapping[int, Secret]
    exposed: Mapping[int, Exposed]
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

    def held(self, bundle: Bundle) -> Bundle:
        """The model as the device holds it: the exposed halves as stored, everything else as it is."""
        weights = {}
        for product in self.products:
            exposed, heights = self.exposed[product.number], list(product.heights)
            for name, part, scale in zip(
                product.layers, torch.split(exposed.weights, heights), torch.split(exposed.scale, heights), strict=True
            ):
                if name in self.ranks:  # the head is no linear layer of a block
                    weights[name] = part.float() * scale[:, None]
        return with_weights(bundle, weights)


def parts_of(
    bundle: Bundle, products: Sequence[Product], ranks: Mapping[str, int], kind: Kind, bits: int | None, seed: int
) -> Halves:
    """Divide every linear layer of a model, and round what is exposed.

    The head is exposed whole, rounded like the rest. One layer goes after the other, so that no second model of floats
    arises.

    Args:
        bundle: the whole model, which stays untouched.
        products: its fused products.
        ranks: secret components of every linear layer, 0 where it is no target.
        kind: of the split.
        bits: of an exposed weight; None keeps floats.
        seed: for the secret choices of a split that makes any.

    Raises:
        ConfigError: for a rank that a matrix does not have, or a weight that is not finite.
    """
    secrets, exposed, kept = {}, {}, {}
    for product in products:
        lefts, rights, stored = [], [], []
        for name in product.layers:
            weight = weight_of(bundle.model.get_submodule(name)).detach()
            if name in ranks:
                parts = split(weight, ranks[name], kind, generator(seed, "slip", "split", name))
                lefts.append(parts.left)
                rights.append(parts.right)
                kept[name], weight = parts.rank, parts.exposed
            stored.append(_stored(weight, bits))
        secrets[product.number] = _secret(product, lefts, rights, bias_of(bundle.model, product))
        exposed[product.number] = Exposed(
            torch.cat([one.weights for one in stored]), torch.cat([one.scale for one in stored])
        )
    return Halves(tuple(products), secrets, exposed, {name: kept[name] for name in ranks})


def _stored(weight: Tensor, bits: int | None) -> Exposed:
    """A weight ``[m, n]`` as the device stores it."""
    if bits is None:
        whole = weight.float()
        return Exposed(whole, torch.ones(len(whole), device=whole.device))
    rounded = quantise_rows(weight, bits)
    return Exposed(rounded.integers, rounded.scale)


def _secret(product: Product, lefts: Sequence[Tensor], rights: Sequence[Tensor], bias: Tensor | None) -> Secret:
    if not any(len(right) for right in rights):
        return Secret(product, None, None, bias)
    return Secret(product, torch.cat(list(rights)), _side_by_side(lefts), bias)


def _side_by_side(lefts: Sequence[Tensor]) -> Tensor:
    """Matrices ``[m_i, k_i]`` along a diagonal, transposed: ``[K, m]``, zero elsewhere."""
    whole = lefts[0].new_zeros(sum(one.shape[1] for one in lefts), sum(one.shape[0] for one in lefts))
    row = column = 0
    for one in lefts:
        whole[row : row + one.shape[1], column : column + one.shape[0]] = one.T
        row, column = row + one.shape[1], column + one.shape[0]
    return whole
