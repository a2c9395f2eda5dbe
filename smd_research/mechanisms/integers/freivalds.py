"""A secret challenge that tells a right product from a wrong one (Freivalds 1977) without computing it again.

For secret uniform ``s`` and ``q = s^T W`` the check ``s^T y = q^T x`` modulo a prime accepts a wrong ``y`` with
probability ``1 / prime`` for each repetition (reconstructed from the abstract of arXiv 2510.24999: "probabilistic
verification"). A challenge may be used again as long as it stays secret and the first refusal ends the session.
"""

from dataclasses import dataclass
from dataclasses import field as attribute

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from smd_research.mechanisms.integers.field import EXACT_BITS, Field, limbs_of
from smd_research.mechanisms.integers.masks import MaskStream

SECRET_BITS = 14
SECRET_LIMBS = 3
REPLY_BITS = 21
REPLY_LIMBS = 2
LONGEST = 2 ** (EXACT_BITS - SECRET_BITS - REPLY_BITS)
"""The longest inner product (outputs and inputs together) that limbs of these lengths keep exact."""
BLOCK = 2**14
"""Outputs that are summed at a time when a challenge is precomputed, so that it is exact in every field."""


@dataclass(frozen=True)
class Challenge:
    """The check of one weight matrix ``[m, n]``; all of it is secret.

    Attributes:
        s: secret residues, int64 ``[repetitions, m]``.
        q: ``s`` times the weights, int64 ``[repetitions, n]``.
        prime: the modulus, below 2^42.
    """

    s: Tensor = attribute(repr=False)
    q: Tensor = attribute(repr=False)
    prime: int
    _limbs: Tensor = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.s.shape[1] + self.q.shape[1] > LONGEST:
            raise ValueError(f"a check of more than {LONGEST} inputs and outputs is not exact")
        # reply and input are checked in one product: s^T y - q^T x = 0
        both = torch.cat([self.s, (self.prime - self.q) % self.prime], 1)
        object.__setattr__(self, "_limbs", limbs_of(both, SECRET_BITS, SECRET_LIMBS))

    @classmethod
    def draw(cls, stream: MaskStream, weights: Tensor, field: Field, repetitions: int, product: int = 0) -> "Challenge":
        """Draw a challenge and precompute ``q``.

        Args:
            stream: a secret stream of this session; another than the masks' own, or its ``child``.
            weights: integers ``[m, n]`` of any dtype, within the field's ``weight_bits``.
            field: where the product is computed.
            repetitions: independent checks; 0 accepts everything.
            product: number of the product, so that products have independent challenges.
        """
        m, n = weights.shape
        s = stream.rows(range(repetitions), product, m, field.prime).to(weights.device)
        q = torch.zeros(repetitions, n, dtype=torch.int64, device=weights.device)
        if repetitions:
            for start in range(0, m, BLOCK):
                part = slice(start, start + BLOCK)
                q = field.add(q, field.product(s[:, part].contiguous(), weights[part].t()))
        return cls(s, q, field.prime)

    def accepts(self, x: Tensor, reply: Tensor) -> bool:
        """Whether ``reply`` is, but for a chance of ``prime**-repetitions``, the product of ``x`` and the weights.

        Args:
            x: residues sent, int64 ``[rows, n]``.
            reply: what came back, int64 ``[rows, m]``. Reduce a peer's numbers first (``Field.reduce``): beyond
                ``[0, prime)`` they are refused, as what is computed with them later could overflow.

        Raises:
            ValueError: where the shapes are not those of the challenge.
        """
        m, n = self.s.shape[1], self.q.shape[1]
        if x.shape[1] != n or reply.shape != (x.shape[0], m):
            raise ValueError(
                f"the challenge is of {m} outputs and {n} inputs, not {tuple(reply.shape)} and {tuple(x.shape)}"
            )
        low, high = torch.aminmax(reply)
        if int(low) < 0 or int(high) >= self.prime:
            return False
        both = torch.cat([reply, x], 1)
        y = functional.linear(limbs_of(both, REPLY_BITS, REPLY_LIMBS), self._limbs)
        parts = y.cpu().numpy().astype(np.int64).reshape(REPLY_LIMBS, x.shape[0], SECRET_LIMBS, self.s.shape[0])
        return not self._joined(parts).any()

    def _joined(self, parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The residues that products of limbs make up; every step stays below 2^63."""
        low, high = parts
        by_secret = ((high % self.prime << REPLY_BITS) + low) % self.prime
        total: NDArray[np.int64] = by_secret[:, -1]
        for limb in reversed(range(SECRET_LIMBS - 1)):
            total = ((total << SECRET_BITS) + by_secret[:, limb]) % self.prime
        return total
