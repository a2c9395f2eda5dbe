"""Reads activations through additive masks in floating point (what a field with uniform masks rules out).

A float mask has a size, and whatever is larger shows through; what is smaller shows in the mean of many rows. Rows of
one product share a mean and a few strong directions. Both are estimated from the masked rows alone, with the mask as
white noise around them, and every row is shrunk to them (Wiener filter; directions beyond what the largest eigenvalue
of noise reaches, Johnstone 2001, theorem 1.1). Own analysis; Slalom (arXiv 1806.03287) masks in a field for the same
reason.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from attacks.base import Public, WeightAttack
from attacks.weights.mask_reuse import masked_rows
from smd_research.boundary import AdversaryView
from smd_research.core.errors import NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.core.observable import Observable
from smd_research.mechanisms.integers.field import FIELDS
from smd_research.mechanisms.integers.parameters import ProtocolParameters

_ROWS = 8  # of fewer the size of the mask cannot be told
_SURE = 5.0  # standard errors from which a mean counts as more than the mask's own
_BEYOND = 6.0  # Tracy-Widom scales above the edge of pure noise: one product in some 100,000 goes farther


class FloatMask(WeightAttack):
    """Estimates activations from their masked images; restores no weight.

    ``facts``: the share of the power of masked inputs that is not the mask's, mean over products and the largest. Where
    masks are uniform residues nothing stands out of them.
    """

    needs = frozenset({Observable.EXPOSED_WEIGHTS, Observable.MASKED_ACTIVATIONS})

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: where nothing is masked.
        """
        protocol = public.published(ProtocolParameters)
        if protocol is None:
            raise NotApplicableError("reads masked activations: this defense sends none")
        self._prime = FIELDS[protocol.field].prime
        super().fit(public)

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Estimate the activations of every product.

        Raises:
            NotApplicableError: when fewer than eight masked rows of a product were seen.
        """
        shares = []
        for rows in masked_rows(views).values():
            if len(rows) >= _ROWS:
                x = rows.double() if rows.is_floating_point() else rows.double() / self._prime - 0.5
                shares.append(float(unmasked(x).square().sum() / x.square().sum()))
        if not shares:
            raise NotApplicableError(f"needs masked inputs: fewer than {_ROWS} rows of a product were seen")
        facts = {"signal_share": float(np.mean(shares)), "signal_share_worst": max(shares)}
        return WeightGuess({}, spent=Spent(steps=len(shares)), facts=facts)


def unmasked(masked: Tensor) -> Tensor:
    """The best linear estimate of activations ``[rows, n]`` from masked ones, which hold white noise as well."""
    rows, n = masked.shape
    centred = masked - masked.mean(0)
    noise = centred.var(0).median() * (rows - 1) / chi2.median(rows - 1)
    mean = torch.where(masked.mean(0).abs() > _SURE * (noise / rows).sqrt(), masked.mean(0), 0.0)
    directions = torch.linalg.svd(centred, full_matrices=False)
    variances = directions.S.square() / (rows - 1)
    kept = variances > noise * _largest(rows - 1, n)
    gains = (1 - noise / variances[kept]).clamp(min=0)
    basis = directions.Vh[kept]
    estimate: Tensor = mean + (centred @ basis.T * gains) @ basis
    return estimate


def _largest(freedom: int, n: int) -> float:
    """What the largest eigenvalue of a covariance of ``n`` columns of unit noise stays below (Johnstone 2001)."""
    root, other = freedom**0.5, n**0.5
    scale = (root + other) * (1 / root + 1 / other) ** (1 / 3)
    return float(((root + other) ** 2 + _BEYOND * scale) / freedom)
