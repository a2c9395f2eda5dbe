"""Cluster noise in the form of TextObfuscator (Zhou et al., Findings of ACL 2023): rows near prototypes, then noise.

Clusters come from k-means over public states, where the paper takes them from labels or keywords of a task. As there,
Laplace noise falls on rows whose norm nothing limits: its scale is a knob, and no epsilon of differential privacy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from smd_research.core.errors import ConfigError
from smd_research.defenses.learned.base import Learned
from smd_research.defenses.learned.lessons import Lesson, Penalty, Schedule, StatesOfText
from smd_research.mechanisms.releases import ClusteredRelease, Moments

_ROUNDS = 10
"""Rounds of Lloyd's algorithm."""


def centres(states: Tensor, count: int, first: Tensor, rounds: int = _ROUNDS) -> Tensor:
    """Centres ``[count, width]`` of clusters of ``states [rows, width]``, by Lloyd's algorithm.

    Args:
        states: at least ``count`` of them.
        count: of clusters; an empty one stays where it is.
        first: rows of ``states`` to begin with ``[count]``.
        rounds: of assignment and averaging.
    """
    found = states[first].clone()
    for _ in range(rounds):
        nearest = torch.cdist(states, found).argmin(1)
        members = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(found).index_add_(0, nearest, states)
        found = torch.where(members[:, None] > 0, sums / members.clamp_min(1)[:, None], found)
    return found


class Clusters(Penalty):
    """Rows are drawn to their prototypes, and prototypes apart.

    Args:
        release: its prototypes learn with it.
        moments: of public states, in whose units distances are.
        pull: weight of the mean squared distance of a row from its prototype.
        apart: weight of the prototypes' mean cosine similarity.
    """

    mean: Tensor
    scale: Tensor
    first: Tensor

    def __init__(self, release: ClusteredRelease, moments: Moments, pull: float, apart: float) -> None:
        super().__init__()
        self._release, self._pull, self._apart = (release,), pull, apart  # in a tuple, which registers nothing
        self.register_buffer("mean", moments.mean)
        self.register_buffer("scale", moments.scale)
        self.register_buffer("first", release.prototypes.detach().clone())

    def forward(self, states: Tensor, sent: Tensor, ids: Tensor) -> Tensor:
        """Both terms; a row belongs to the prototype that began nearest to its state."""
        (release,) = self._release
        rows = states.flatten(0, 1)
        own = release.prototypes[torch.cdist(rows, self.first).argmin(1)]
        distance = ((release.centre(rows) - own) / self.scale).square().mean()
        spread = functional.normalize((release.prototypes - self.mean) / self.scale, dim=-1)
        alike = spread @ spread.T
        others = max(1, len(alike) * (len(alike) - 1))
        return self._pull * distance + self._apart * (alike.sum() - alike.diagonal().sum()) / others


@dataclass(frozen=True)
class ObfuscatorLesson(Lesson):
    """Options of cluster noise.

    Attributes:
        noise: scale of the Laplace noise on each coordinate, in units of the public states' root mean square deviation.
        clusters: prototypes, no more than there are public states to find them among.
        pull: weight of the distance of rows from their prototypes.
        apart: weight of the prototypes' similarity.
    """

    noise: float
    clusters: int
    pull: float
    apart: float

    def begin(self, sample: StatesOfText) -> tuple[ClusteredRelease, Penalty]:
        """States as they are with noise, and prototypes at the centres of clusters."""
        count = min(self.clusters, len(sample.states))
        first = torch.from_numpy(sample.rng.permutation(len(sample.states))[:count]).to(sample.states.device)
        release = ClusteredRelease(self.noise, centres(sample.states, count, first), sample.moments)
        return release, Clusters(release, sample.moments, self.pull, self.apart)


class Obfuscator(Learned):
    """Rows drawn to public prototypes, with Laplace noise that no clipping bounds. No guarantee.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        noise: see ``ObfuscatorLesson``, as for the next three.
        clusters: how many prototypes.
        pull: towards them.
        apart: between them.
        steps: see ``lessons.Schedule``, as for the next three.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(
        self,
        layer: int = 1,
        noise: float = 0.5,
        clusters: int = 100,
        pull: float = 0.5,
        apart: float = 0.2,
        steps: int = 120,
        batch: int = 4,
        row_tokens: int = 64,
        learning_rate: float = 2e-3,
        wire_dtype: str = "fp32",
    ) -> None:
        for name, value in (("noise", noise), ("pull", pull), ("apart", apart)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"defense.{name}={value:g} is out of range: it is 0 or more, and finite")
        if clusters < 1:
            raise ConfigError(f"defense.clusters={clusters} is out of range: it is at least 1")
        super().__init__(layer, Schedule(steps, batch, row_tokens, learning_rate), wire_dtype)
        self._lesson = ObfuscatorLesson(float(noise), clusters, float(pull), float(apart))

    @property
    def lesson(self) -> ObfuscatorLesson:
        """What the client learns."""
        return self._lesson
