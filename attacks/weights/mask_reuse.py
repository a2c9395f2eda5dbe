"""Subtracts two masked inputs that share a mask (weight decomposition with masks used more than once).

``(x1 + r) - (x2 + r) = x1 - x2 mod p``: exact differences of activations, each in fixed point with a step of its own,
which stays unknown. The attack is not told which rows share a mask. It lifts the differences of all pairs: with one
mask they are small beside the prime, with two they are uniform, so that a few coordinates decide.

What it does not give: the secret part itself. The trusted side never shows a product's output, only what non-linear
steps made of it, so that differences are not linear pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.base import Public, WeightAttack
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import MaskedInput
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.core.observable import Observable
from smd_research.mechanisms.integers.field import FIELDS, Field
from smd_research.mechanisms.integers.parameters import ProtocolParameters

_COORDINATES = 24  # that decide whether two rows share a mask
_SMALL = 8.0  # a difference is small when it is below the prime over this: a quarter of uniform residues is, by chance


class MaskReuse(WeightAttack):
    """Finds rows that share a mask and takes their differences; restores no weight.

    ``facts``: the share of masked rows that share a mask with another one, and how many bits of a residue are left to
    hide a row once another of its mask is known (41 of the wide field where masks are used once).

    Args:
        rows: of each product that are compared with each other, the first that were seen.

    Raises:
        ConfigError: for fewer than two rows.
    """

    needs = frozenset({Observable.EXPOSED_WEIGHTS, Observable.MASKED_ACTIVATIONS})

    def __init__(self, rows: int = 256) -> None:
        if rows < 2:
            raise ConfigError(f"attack.rows={rows} is out of range: give at least 2")
        self._rows = rows

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: where masked inputs are no residues.
        """
        protocol = public.published(ProtocolParameters)
        if protocol is None or protocol.masking == "float":
            raise NotApplicableError("subtracts residues modulo a prime: this defense sends none")
        self._field = FIELDS[protocol.field]
        super().fit(public)

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Find all differences.

        Raises:
            NotApplicableError: when no masked row was seen.
        """
        found = [differences(rows[: self._rows], self._field) for rows in masked_rows(views).values()]
        if not found:
            raise NotApplicableError("needs masked inputs: none was seen")
        rows = sum(one.rows for one in found)
        shared = sum(one.sharing for one in found)
        sizes = torch.cat([one.values.abs().flatten() for one in found]).double()
        left = math.log2(self._field.prime) if not len(sizes) else math.log2(2 * float(sizes.max()) + 1)
        return WeightGuess(
            {},
            certified=shared > 0,
            residual=1 - shared / rows,
            spent=Spent(steps=len(found)),
            facts={"rows_sharing_masks": shared / rows, "hidden_bits": left},
        )


@dataclass(frozen=True, repr=False)
class Differences:
    """Differences of rows of one product that share a mask.

    Attributes:
        rows: number of rows compared.
        pairs: which rows ``[found, 2]``: each that shares a mask with an earlier one, and the first such.
        values: fixed-point ``x_a - x_b`` ``[found, n]``, signed.
    """

    rows: int
    pairs: Tensor
    values: Tensor

    @property
    def sharing(self) -> int:
        """Number of rows whose mask another row has as well."""
        return len(set(self.pairs.flatten().tolist()))


def differences(masked: Tensor, field: Field) -> Differences:
    """Differences of masked rows ``[rows, n]`` with one mask."""
    probes = masked[:, :_COORDINATES]
    apart = field.lift(probes[:, None] - probes[None, :]).abs().amax(-1)
    same = (apart < field.prime / _SMALL).tril(-1)
    later = same.any(1).nonzero().flatten()
    pairs = torch.stack([later, same[later].int().argmax(1)], 1)
    return Differences(len(masked), pairs, field.lift(masked[pairs[:, 0]] - masked[pairs[:, 1]]))


def masked_rows(views: Sequence[AdversaryView]) -> dict[int, Tensor]:
    """Masked inputs ``[rows, n]`` by product, in the order they passed."""
    found: dict[int, list[Tensor]] = {}
    for view in views:
        for message in view.of(MaskedInput):
            found.setdefault(message.product, []).append(message.x)
    return {number: torch.cat(rows) for number, rows in found.items()}
