"""What the learned defenses have in common: a client that sends what a release makes of its states."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, Defense, Prepared, PublicText
from smd_research.defenses.learned.lessons import Lesson, Schedule, taught
from smd_research.defenses.split import SHOWS, SplitDeployment, check_cut, cut_after
from smd_research.mechanisms.releases import Release, ReleaseParameters
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters
from smd_research.models.bundle import Bundle
from smd_research.models.sources import DTYPES


class Untaught(Release):
    """A client that had no public text to learn from: a provider can be started beside it, a prompt not be sent."""

    def centre(self, states: Tensor) -> Tensor:
        """Refuse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the client has not learned what to send: it needs public text")


class LearnedDeployment(SplitDeployment):
    """A client that sends what it learned to, and a provider of the stock model's blocks after the cut.

    Args:
        prepared: what is deployed.
        boundary: joins the parties.
    """

    def __init__(self, prepared: "LearnedPrepared", boundary: Boundary) -> None:
        super().__init__(prepared.bundle, boundary, prepared.cut, PermutationParameters(), prepared.seed)
        self._release, self._draws = prepared.release, np.random.default_rng(0)

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        self._draws = generator(self._seed, "release", self.draw)

    @torch.no_grad()
    def sent(self, ids: Sequence[int], position: int) -> Tensor:
        """States ``[rows, width]`` as they cross; rows of generated tokens go through the same release."""
        states = self._split_client.hidden(ids, position).float()
        return self._release.release(states, self._draws).to(DTYPES[self._cut.wire_dtype])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class LearnedPrepared(Prepared):
    """A model to cut, and what the client does to its states.

    Attributes:
        cut: where.
        release: what the client sends of its states.
        losses: of every step of the training.
    """

    cut: SplitParameters
    release: Release
    losses: tuple[float, ...] = ()

    def deploy(self, boundary: Boundary) -> LearnedDeployment:
        """Start the two parties."""
        return LearnedDeployment(self, boundary)


class Learned(Defense, ABC):
    """Split inference whose client learns on public text what to send. It promises nothing.

    What is learned is public: an attacker knows the weights, the mechanism and its options.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        schedule: how long it learns.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(self, layer: int, schedule: Schedule, wire_dtype: str) -> None:
        self.cut = cut_after(layer, wire_dtype)
        self.schedule = schedule

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    @property
    @abstractmethod
    def lesson(self) -> Lesson:
        """What the client learns."""

    def untrained(self) -> Release | None:
        """What a client sends that needs to learn nothing; None where it has to."""
        return None

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> LearnedPrepared:
        """Let the client learn.

        Args:
            bundle: the model; never modified.
            public_text: what the client learns on; without it a prompt cannot be served, but a provider started.
            seed: of the training and of what is drawn for a request.
            folder: not used: the training is short, and kept for the process.

        Raises:
            ConfigError: for a cut that the model has not, or too little public text.
        """
        check_cut(self.cut, bundle)
        release = self.untrained()
        losses: tuple[float, ...] = ()
        if release is None and public_text.corpus:
            corpus = tuple(map(tuple, public_text.corpus))
            found = taught(bundle, self.cut.layer, corpus, self.lesson, self.schedule, seed)
            release, losses = found.release, found.losses
        release = release or Untaught()
        return LearnedPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=(self.cut, self.lesson, self.schedule, ReleaseParameters(release)),
            shows=SHOWS,
            seed=seed,
            cut=self.cut,
            release=release,
            losses=losses,
        )
