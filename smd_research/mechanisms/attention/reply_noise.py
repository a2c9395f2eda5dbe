"""What a vault may do to its replies ``(m, g, A)`` before they cross: Gaussian noise, and fewer bits.

``A`` is a convex combination of value vectors, so with values of norm at most ``C`` the replies to one query under two
prompts differ by at most ``2 C`` a head. ``m`` and ``g`` carry as much of the prompt as ``A`` does, and exactly: noise
on ``A`` alone leaves every score to be read off (``l = m + log g`` is one exact equation a query and head), so it
promises nothing. Only with noise on ``l`` too is there a guarantee. Either breaks output invariance: the merged
attention is no longer that of the unprotected model.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.gaussian import clip_rows, gaussian_epsilon
from smd_research.models.partial_attention import Partial


@dataclass(frozen=True)
class ReplyNoiseParameters:
    """What is published of noise on replies; where it is not published, there is none.

    Attributes:
        noise_multiplier: standard deviation on ``A`` in units of a reply's sensitivity.
        noise_log_weight: standard deviation on ``l``, in nats.
    """

    noise_multiplier: float
    noise_log_weight: float


@dataclass(frozen=True)
class ReplyRoundingParameters:
    """What is published of replies that are rounded; where it is not published, they are not.

    Attributes:
        reply_bits: mantissa bits that ``m``, ``g`` and ``A`` keep.
    """

    reply_bits: int


@dataclass(frozen=True, repr=False)
class ReplyNoise:
    """Gaussian noise on replies.

    Attributes:
        multiplier: standard deviation on ``A`` in units of the sensitivity ``2 C sqrt(heads)`` of a reply.
        log_weight: standard deviation on ``l``, in nats; 0 leaves ``m`` and ``g`` exact.
        value_norm: ``C`` of each layer ``[layers]``: longer rows of ``A`` are clipped to it.
        log_bound: ``B`` of each layer ``[layers]``: where there is noise on ``l``, it is clipped to ``[-B, B]``.
    """

    multiplier: float
    log_weight: float
    value_norm: Tensor
    log_bound: Tensor

    def __post_init__(self) -> None:
        if not (0 <= self.multiplier < math.inf and 0 <= self.log_weight < math.inf):
            raise ConfigError("noise on replies: noise_multiplier and noise_log_weight must be 0 or more, and finite")

    def sigma(self, layer: int, heads: int) -> float:
        """Standard deviation of each coordinate of ``A``."""
        return self.multiplier * 2 * float(self.value_norm[layer]) * math.sqrt(heads)

    def release(self, shard: Partial, layer: int, rng: np.random.Generator) -> Partial:
        """A reply with fresh noise.

        Args:
            shard: ``m``, ``g`` ``[streams, heads, rows]``, ``a`` ``[streams, heads, rows, d]``.
            layer: whose reply it is.
            rng: of the noise, drawn in float64.

        Returns:
            The noised reply; where ``l`` is noised, ``m`` is ``l`` and ``g`` is one. An empty reply stays empty.
        """
        m, g, a = shard
        if self.multiplier:
            clipped = clip_rows(a.double(), float(self.value_norm[layer]))
            a = (clipped + self._draw(a, self.sigma(layer, a.shape[1]), rng)).to(a.dtype)
        if self.log_weight:
            bound = float(self.log_bound[layer])
            weight = (m.double() + g.double().log()).clamp(-bound, bound) + self._draw(m, self.log_weight, rng)
            m, g = torch.where(g > 0, weight, m.double()).float(), (g > 0).float()
        return Partial(m, g, a)

    @staticmethod
    def _draw(like: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.standard_normal(tuple(like.shape)) * sigma).to(like.device)

    def guarantee(self, heads: int, delta: float) -> Guarantee | None:
        """The guarantee of one reply; None while anything of it is exact.

        Two Gaussians on ``A`` and ``l`` are one, of sensitivity over deviation
        ``mu = sqrt(1 / multiplier^2 + (2 B sqrt(heads) / sigma_l)^2)``; ``r`` replies multiply ``mu`` by ``sqrt(r)``.
        A whole request has no guarantee: its first token is the vault's own, of exact logits, and crosses as it is.
        """
        if not (self.multiplier and self.log_weight):
            return None
        widest = 2 * float(self.log_bound.max()) * math.sqrt(heads)
        mu = math.hypot(1 / self.multiplier, widest / self.log_weight)
        examples = ", ".join(f"r={r}: {gaussian_epsilon(1 / mu, delta, math.sqrt(r)):.4g}" for r in (1, 32, 160))
        return Guarantee(
            notion="(epsilon, delta)-LDP",
            unit="reply",
            epsilon=gaussian_epsilon(1 / mu, delta),
            delta=delta,
            metric="Euclidean",
            adjacency="replacement of the whole prompt, same length",
            sensitivity=2 * float(self.value_norm.max()) * math.sqrt(heads),
            clip=float(self.value_norm.max()),
            composition=(
                "a request of t tokens is layers x (t - 1) replies and its first token, which is released exactly: no "
                f"epsilon covers that one; r replies cost, at the same delta, epsilon {examples}"
            ),
            assumptions="clips chosen on public text; length and output visible; queries may be chosen adaptively",
            verified="deviation of released replies against the formula",
            source="analytic Gaussian mechanism, Balle and Wang, ICML 2018; Gaussian composition, Dong et al. 2022",
        )


def round_mantissa(x: Tensor, bits: int) -> Tensor:
    """Round to the nearest number with ``bits`` bits after the leading one, in the same dtype; infinities stay.

    Raises:
        ConfigError: for fewer than 1 or more than 23 bits.
    """
    if not 1 <= bits <= 23:
        raise ConfigError(f"defense.reply_bits={bits} is out of range: use 1 to 23 bits, or null for all")
    fraction, exponent = torch.frexp(x.double())
    scale = 2.0 ** (bits + 1)
    rounded = torch.ldexp((fraction * scale).round() / scale, exponent)
    return torch.where(x.isfinite(), rounded, x.double()).to(x.dtype)
