"""What the device holds of every protected matrix, and what that tells of the part it was not given.

``W = W^D + W^C`` with ``W^C`` of a public rank ``k``. The top components of ``W`` leave a hole in ``W^D``: its null
spaces contain the rows and the columns of ``W^C``. They are known exactly on the input side of a matrix with at least
as many rows as columns, on the output side of one with at most as many, and up to ``|m - n|`` further directions on the
other side.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from attacks.base import Public
from smd_research.core.errors import NotApplicableError
from smd_research.mechanisms.decomposition.hidden_subspace import null_space
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.models.linears import linear_layers, weight_of, with_weights


@dataclass(frozen=True, repr=False)
class Protected:
    """One matrix with a part that the device was not given.

    Attributes:
        name: of its layer.
        rank: ``k`` of the secret part; public.
        exposed: ``W^D`` ``[m, n]``, float64.
        product: number of the product that it is computed in.
        rows: its rows in the answer of that product.
    """

    name: str
    rank: int
    exposed: Tensor
    product: int
    rows: slice

    @property
    def input_space(self) -> Tensor:
        """Orthonormal columns ``[n, max(n - m, 0) + k]`` whose span holds the rows of ``W^C``."""
        return null_space(self.exposed, self.rank)

    @property
    def output_space(self) -> Tensor:
        """Orthonormal columns ``[m, max(m - n, 0) + k]`` whose span holds the columns of ``W^C``."""
        return null_space(self.exposed.T, self.rank)


def protected(public: Public) -> tuple[Protected, ...]:
    """All matrices with a secret part, in the order of the model.

    Raises:
        NotApplicableError: when the defense keeps no part of any matrix.
    """
    secret = public.published(SecretParts) or SecretParts((), {})
    layers = linear_layers(public.bundle)
    found = []
    for number, names in enumerate(secret.products):
        first = 0
        for name in names:
            if name not in layers:
                continue  # the head, whose weights are all exposed
            exposed = weight_of(layers[name]).detach().double()
            if rank := secret.ranks.get(name, 0):
                rows = slice(first, first + exposed.shape[0])
                found.append(Protected(name, rank, exposed, number, rows))
            first += exposed.shape[0]
    if not found:
        raise NotApplicableError("restores the secret part of weights: this defense keeps none")
    return tuple(found)


def stored(public: Public, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole matrices ``[m, n]`` by layer, as the model's ``state_dict`` names and lays them out."""
    made = with_weights(public.bundle, weights).model.state_dict()
    return {f"{name}.weight": made[f"{name}.weight"] for name in weights}
