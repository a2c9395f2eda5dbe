"""Releases that training on public text shapes; none of them bounds what a state tells, so none gives a guarantee."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from smd_research.mechanisms.releases.adapter import Adapter, Moments
from smd_research.mechanisms.releases.base import Release, drawn

FIRST_RATIO = 0.1
"""Deviation of a bottleneck's noise before training, as a share of the public states' own."""


class AdaptedRelease(Release):
    """Adapted rows and no noise: what adversarial training leaves.

    Args:
        moments: of public states.
    """

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.adapter = Adapter(moments)

    def centre(self, states: Tensor) -> Tensor:
        """The adapted rows."""
        return cast(Tensor, self.adapter(states))


class BottleneckRelease(Release):
    """Adapted rows and Gaussian noise whose deviation was learnt, by coordinate and state (Alemi et al., 2017).

    Args:
        moments: of public states; they are the prior's too.
    """

    noisy = True

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        width = len(moments.mean)
        self.adapter, self.spread = Adapter(moments), nn.Linear(width, width)
        nn.init.zeros_(self.spread.weight)
        nn.init.constant_(self.spread.bias, float(np.log(FIRST_RATIO)))

    def centre(self, states: Tensor) -> Tensor:
        """The mean of what is sent."""
        return cast(Tensor, self.adapter(states))

    def _log_ratio(self, states: Tensor) -> Tensor:
        """Logarithm of the noise's deviation over the prior's ``[..., width]``, kept in a sane range."""
        return cast(Tensor, self.spread(self.adapter.standardised(states))).clamp(-8.0, 4.0)

    def release(self, states: Tensor, rng: np.random.Generator) -> Tensor:
        """A draw of the law of the states."""
        noise = drawn(rng.standard_normal(tuple(states.shape)), states)
        return self.centre(states) + self.adapter.scale * self._log_ratio(states).exp() * noise

    def log_density(self, states: Tensor, sent: Tensor) -> Tensor:
        """Of the Gaussian law."""
        ratio = self._log_ratio(states)
        gap = (sent - self.centre(states)) / (self.adapter.scale * ratio.exp())
        return -(gap.square() / 2 + ratio).sum(-1)

    def divergence(self, states: Tensor) -> Tensor:
        """Kullback-Leibler divergence ``[...]`` of each row's law from the prior, nats: a bound on what it tells."""
        ratio = self._log_ratio(states)
        gap = self.adapter.standardised(self.centre(states))
        return 0.5 * ((2 * ratio).exp() + gap.square() - 1 - 2 * ratio).sum(-1)


class SparseRelease(Release):
    """The largest coordinates of each row, the rest at zero.

    Args:
        share: of the coordinates that are kept, at least one.
        moments: of public states, for an adapter that is trained to put into few coordinates what counts; None has
            none.
    """

    def __init__(self, share: float, moments: Moments | None = None) -> None:
        super().__init__()
        self._share = share
        self.adapter = Adapter(moments) if moments else None

    def centre(self, states: Tensor) -> Tensor:
        """The rows with their largest coordinates alone."""
        rows: Tensor = self.adapter(states) if self.adapter else states
        kept = max(1, round(self._share * rows.shape[-1]))
        chosen = rows.abs().topk(kept, -1).indices
        return torch.zeros_like(rows).scatter(-1, chosen, rows.gather(-1, chosen))


class ClusteredRelease(Release):
    """Rows adapted to lie near public prototypes, and Laplace noise (TextObfuscator, Findings of ACL 2023).

    Rows are not clipped, so the noise has no finite sensitivity to hide and is no differential privacy.

    Args:
        noise: scale of the Laplace noise, in units of the public states' root mean square deviation.
        prototypes: ``[m, width]``, where training starts from.
        moments: of public states.
    """

    noisy = True

    def __init__(self, noise: float, prototypes: Tensor, moments: Moments) -> None:
        super().__init__()
        self.adapter, self.prototypes = Adapter(moments), nn.Parameter(prototypes.clone())
        self._scale = noise * moments.unit

    def centre(self, states: Tensor) -> Tensor:
        """The adapted rows."""
        return cast(Tensor, self.adapter(states))

    def release(self, states: Tensor, rng: np.random.Generator) -> Tensor:
        """Adapted rows and noise."""
        return self.centre(states) + self._scale * drawn(rng.laplace(size=tuple(states.shape)), states)

    def log_density(self, states: Tensor, sent: Tensor) -> Tensor:
        """Of the Laplace law."""
        return -(sent - self.centre(states)).abs().sum(-1) / max(self._scale, 1e-12)
