"""The clipped softmax: an exponential mechanism over a model's logits, whose epsilon is in the clip and temperature."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee, check_epsilon

FLOOR, CEILING = 0.95, 0.5
"""Public bounds: this quantile of all logits, and this of each place's largest. What lies beyond is clipped."""


@dataclass(frozen=True)
class LogitBounds:
    """Where logits are clipped.

    Attributes:
        low: smaller ones are raised to it.
        high: larger ones are lowered to it.

    Raises:
        ConfigError: for bounds that are not finite, out of order, or equal.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            raise ConfigError(f"defense.low={self.low:g} and defense.high={self.high:g}: both have to be finite")
        if self.low == self.high:
            raise ConfigError(f"defense.low and defense.high are both {self.low:g}: a clip of zero width says nothing")
        if self.low > self.high:
            raise ConfigError(f"defense.low={self.low:g} lies above defense.high={self.high:g}: swap them")

    @property
    def width(self) -> float:
        """How far a clipped logit can move when the text is replaced."""
        return self.high - self.low

    @classmethod
    def of_public(cls, logits: Tensor) -> "LogitBounds":
        """Quantiles of the logits ``[places, tokens]`` that a model gives to public text."""
        values = logits.double().cpu().numpy()
        return cls(float(np.quantile(values, FLOOR)), float(np.quantile(values.max(1), CEILING)))


@dataclass(frozen=True, eq=False)
class ClippedSoftmax:
    """``p(y) ~ exp(clip(u_y, low, high) / T)``, ``T = 2 (high - low) / epsilon``, over all tokens that are not barred.

    A clipped logit moves by at most ``high - low``, and so does ``T log sum exp``: together a log probability moves by
    at most ``epsilon`` when the text is replaced (DP-Prompt, arXiv 2310.16111, section 3; DP-MLM, arXiv 2407.00637).
    Everything is in float64 log space. No token but the barred ones, which are the same for every text, is ever left
    out: there is no top-k, no top-p, no greedy choice.

    Attributes:
        bounds: of the clip.
        epsilon: of one token that is drawn.
        clipped: False leaves the logits as they are, as released code does with a temperature alone: then nothing that
            depends on the bounds alone limits what a token tells.
        barred: tokens that are never drawn ``[b]``, the same for every text.
    """

    bounds: LogitBounds
    epsilon: float
    clipped: bool
    barred: Tensor

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    @property
    def temperature(self) -> float:
        """Divides the logits."""
        return 2 * self.bounds.width / self.epsilon

    def log_law(self, logits: Tensor) -> Tensor:
        """Log probabilities ``[..., vocab]`` in float64 of logits ``[..., vocab]``; ``-inf`` at barred tokens alone."""
        scores = logits.double()
        if self.clipped:
            scores = scores.clamp(self.bounds.low, self.bounds.high)
        scores = (scores / self.temperature).index_fill(-1, self.barred.to(scores.device), -torch.inf)
        return torch.log_softmax(scores, -1)

    def draw(self, logits: Tensor, rng: np.random.Generator) -> Tensor:
        """One token for each row of ``logits [rows, vocab]``, by inverse transform on cumulative rows; ``[rows]``."""
        law = self.log_law(logits).exp()
        cumulative = law.cumsum(-1)
        uniforms = torch.from_numpy(rng.random(len(law))).to(cumulative.device)[:, None]
        places = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)[:, 0]
        last = (law > 0).double().cumsum(-1).argmax(-1)  # rounding may step past the last token that there is
        return torch.minimum(places, last)

    def guarantee(self, adjacency: str, source: str, verified: str) -> Guarantee | None:
        """What one token is promised; None without a clip.

        Args:
            adjacency: which two texts are neighbours.
            source: the paper.
            verified: the test that would refute it.
        """
        if not self.clipped:
            return None
        return Guarantee(
            notion="LDP of the text",
            unit="written token",
            epsilon=self.epsilon,
            adjacency=adjacency,
            sensitivity=self.bounds.width,
            composition=(
                f"n tokens are written from one text: n*{self.epsilon:.4g} whether all of it or one of its tokens is "
                "replaced, as each is drawn with the whole text in sight"
            ),
            unit_epsilon=self.epsilon,
            support="every token that neither is special nor passes, at every place that is written, whatever the text",
            assumptions=(
                f"logits clipped to [{self.bounds.low:.4g}, {self.bounds.high:.4g}], bounds from public text; float64 "
                "sampling; number of tokens and special tokens visible"
            ),
            verified=verified,
            source=source,
        )
