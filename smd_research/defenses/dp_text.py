"""Differentially private text: the client sends other tokens, drawn from a public channel; the provider serves those.

Metric differential privacy for each token over embedding distance: the exponential mechanism in the form of SanText
(Findings ACL 2021), or radial noise and the nearest neighbour (Feyisetan et al., WSDM 2020). The answer belongs to the
sanitised prompt: privacy is paid in usefulness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, Defense, Prepared, PublicText
from smd_research.defenses.none import PlainDeployment
from smd_research.mechanisms.privacy.channels import (
    TOKEN_MECHANISMS,
    TokenChannelParameters,
    TokenMechanism,
    bundle_space,
    token_channel,
    token_epsilons,
)
from smd_research.mechanisms.privacy.embedding_space import Scale
from smd_research.mechanisms.privacy.survival import token_frequencies
from smd_research.mechanisms.privacy.token_channel import TokenChannel
from smd_research.models.bundle import Bundle

SHOWS = frozenset({Observable.SANITISED_IDS, Observable.OUTPUT_TOKENS, Observable.LENGTH})


class DpTextDeployment(PlainDeployment):
    """A client that sanitises, a provider that serves what it gets.

    Args:
        bundle: the model.
        boundary: joins the parties.
        channel: draws what is sent.
        seed: of the channel's randomness.
    """

    def __init__(self, bundle: Bundle, boundary: Boundary, channel: TokenChannel, seed: int) -> None:
        super().__init__(bundle, boundary, SHOWS)
        self._token_channel = channel
        self._seed = seed

    def said(self, ids: Sequence[int]) -> Sequence[int]:
        """What the request's draw makes of its tokens."""
        rng = generator(self._seed, "dp_text", self.draw)
        drawn: list[int] = self._token_channel.sample(list(ids), rng).tolist()
        return drawn


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class DpTextPrepared(Prepared):
    """A model that is served as it is, and the channel that every prompt goes through.

    Attributes:
        channel: draws what is sent.
    """

    channel: TokenChannel

    def deploy(self, boundary: Boundary) -> DpTextDeployment:
        """Start the two parties."""
        return DpTextDeployment(self.bundle, boundary, self.channel, self.seed)


class DpText(Defense):
    """Token-level metric differential privacy on the prompt's text.

    Args:
        mechanism: ``santext`` or ``dchi``.
        epsilon: per token and unit of distance; wins over ``survival``.
        survival: choose epsilon so that this share of tokens passes unchanged, on the frequencies of the public corpus
            (all tokens alike without one).
        space: ``unit`` (rows of norm one, distances up to 2) or ``raw``.

    Raises:
        ConfigError: for an unknown name, a value out of range, or neither epsilon nor survival.
    """

    def __init__(
        self,
        mechanism: TokenMechanism = "santext",
        epsilon: float | None = None,
        survival: float | None = 0.5,
        space: Scale = "unit",
    ) -> None:
        if mechanism not in TOKEN_MECHANISMS:
            raise ConfigError(f"defense.mechanism={mechanism} is unknown: use one of {', '.join(TOKEN_MECHANISMS)}")
        if epsilon is None and survival is None:
            raise ConfigError("dp_text needs defense.epsilon=E, or defense.survival=S (a share between 0 and 1)")
        if epsilon is not None and epsilon <= 0:
            raise ConfigError(f"defense.epsilon={epsilon:g} is out of range: it must be positive")
        if survival is not None and not 0 < survival < 1:
            raise ConfigError(f"defense.survival={survival:g} is out of range: it lies between 0 and 1")
        self.mechanism = mechanism
        self.epsilon = epsilon
        self.survival = survival
        self.space: Scale = space

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> DpTextPrepared:
        channel = self.channel(bundle, public_text.corpus)
        return DpTextPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=(TokenChannelParameters(self.mechanism, channel.epsilon, channel.space.scale),),
            guarantee=channel.guarantee(),
            shows=self.shows,
            seed=seed,
            channel=channel,
        )

    def channel(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> TokenChannel:
        """The channel for a model, its epsilon found from the survival share where none is given.

        Args:
            bundle: the model, whose embedding is the metric.
            corpus: token ids of public text, whose frequencies count.
        """
        space = bundle_space(bundle, self.space)
        epsilon = self.epsilon
        if epsilon is None:
            assert self.survival is not None
            counted = token_frequencies(corpus, bundle.geometry.vocab)
            frequencies = counted if counted[space.private_ids].any() else counted + 1
            (epsilon,) = token_epsilons(self.mechanism, space, frequencies, (self.survival,))
        return token_channel(self.mechanism, space, epsilon)
