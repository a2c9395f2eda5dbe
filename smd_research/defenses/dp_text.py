"""Differentially private text: the client sends other tokens, drawn from a public channel; the provider serves those.

Metric differential privacy for each token over embedding distance (SanText, TEM, d_chi, Mahalanobis noise), for a share
of the vocabulary (SanText+), within small sets of tokens (CusText), or none at all (RANTEXT). The answer belongs to the
sanitised prompt: privacy is paid in usefulness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import check_epsilon
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, PublicText
from smd_research.defenses.none import PlainDeployment
from smd_research.defenses.tunable import ClientCode, Tunable, TunablePrepared
from smd_research.mechanisms.privacy.channels import (
    DEFAULTS,
    TOKEN_MECHANISMS,
    UNIFORM_NEEDS_PROBABILITIES,
    TokenChannelParameters,
    TokenMechanism,
    TokenOptions,
    counts_frequencies,
    metric_space,
    promise,
    published_channel,
    token_channel,
    token_epsilons,
)
from smd_research.mechanisms.privacy.customised_sets import Mapping
from smd_research.mechanisms.privacy.embedding_space import SCALES, Scale
from smd_research.mechanisms.privacy.random_lists import released_divisor
from smd_research.mechanisms.privacy.survival import check_share, token_frequencies
from smd_research.mechanisms.privacy.token_channel import TokenChannel
from smd_research.mechanisms.privacy.unknown_tokens import UNKNOWN, Unknown
from smd_research.mechanisms.privacy.word_vectors import token_vectors
from smd_research.models.bundle import Bundle

SHOWS = frozenset({Observable.SANITISED_IDS, Observable.OUTPUT_TOKENS, Observable.LENGTH})
TUNING_SHOWS = frozenset({Observable.SANITISED_IDS, Observable.LABELS, Observable.LENGTH})


@dataclass(frozen=True, repr=False, eq=False)
class SanitisingCode(ClientCode):
    """One fixed noisy copy of each text, to tune on as to ask about: fresh draws would each cost the budget again.

    Attributes:
        channel: draws what is sent.
        seed: of its randomness.
    """

    channel: TokenChannel
    seed: int

    def replaced(self, texts: Sequence[Sequence[int]], first: int = 0) -> Sequence[Sequence[int]]:
        """What each text's own draw makes of its tokens."""
        return [self._copy(text, first + number) for number, text in enumerate(texts)]

    def _copy(self, text: Sequence[int], number: int) -> list[int]:
        drawn: list[int] = self.channel.sample(list(text), generator(self.seed, "dp_text", "tune", number)).tolist()
        return drawn


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
class DpTextPrepared(TunablePrepared):
    """A model that is served, or tuned, as it is, and the channel that every text goes through.

    Attributes:
        channel: draws what is sent.
    """

    channel: TokenChannel

    def deploy(self, boundary: Boundary) -> DpTextDeployment:
        """Start the two parties."""
        return DpTextDeployment(self.bundle, boundary, self.channel, self.seed)


class DpText(Tunable):
    """Token-level metric differential privacy on the text of prompts, or of what is tuned on.

    Args:
        mechanism: one of :data:`~smd_research.mechanisms.privacy.channels.TOKEN_MECHANISMS`.
        epsilon: per token, and unit of distance where the mechanism has one; wins over ``survival``.
        survival: choose epsilon so that this share of tokens passes unchanged, on the frequencies of the public corpus
            (all tokens alike without one).
        space: ``unit`` (rows of norm one, distances up to 2) or ``raw``.
        sensitive_share: ``santext_plus``: the least frequent share of the vocabulary, which is protected.
        resampled: ``santext_plus``: probability that a token outside that share does not pass unchanged.
        set_size: ``custext``: outputs of a token.
        mapping: ``custext``: ``partition`` or ``own``.
        lam: ``mahalanobis``: weight of the table's covariance.
        beta: ``tem``: share of outputs beyond where distances are cut off.
        vectors_path: word vectors in the place of the model's embedding table, a word and its numbers a line.
        unknown: tokens without a vector: ``uniform`` (any private token), ``refuse`` or ``public`` (they pass).

    Raises:
        ConfigError: for an unknown name, a value out of range, or neither epsilon nor survival.
    """

    def __init__(
        self,
        mechanism: TokenMechanism = "santext",
        epsilon: float | None = None,
        survival: float | None = 0.5,
        space: Scale = "unit",
        sensitive_share: float = DEFAULTS.sensitive_share,
        resampled: float = DEFAULTS.resampled,
        set_size: int = DEFAULTS.set_size,
        mapping: Mapping = DEFAULTS.mapping,
        lam: float = DEFAULTS.lam,
        beta: float = DEFAULTS.beta,
        vectors_path: str | None = None,
        unknown: Unknown = "uniform",
    ) -> None:
        if mechanism not in TOKEN_MECHANISMS:
            raise ConfigError(f"defense.mechanism={mechanism} is unknown: use one of {', '.join(TOKEN_MECHANISMS)}")
        if space not in SCALES:
            raise ConfigError(f"defense.space={space} is unknown: use one of {', '.join(SCALES)}")
        if epsilon is None and survival is None:
            raise ConfigError("dp_text needs defense.epsilon=E, or defense.survival=S (a share between 0 and 1)")
        if epsilon is not None:
            check_epsilon(epsilon, "defense.epsilon")
        if survival is not None:
            check_share(survival, "defense.survival")
        if mechanism == "rantext":
            if epsilon is None:
                raise ConfigError(
                    "defense.mechanism=rantext needs defense.epsilon=E: its survival does not follow epsilon"
                )
            released_divisor(epsilon)
        if unknown not in UNKNOWN:
            raise ConfigError(f"defense.unknown={unknown} is unknown: use one of {', '.join(UNKNOWN)}")
        if vectors_path and unknown == "uniform" and mechanism in ("dchi", "mahalanobis"):
            raise ConfigError(UNIFORM_NEEDS_PROBABILITIES)
        self.options = TokenOptions(sensitive_share, resampled, set_size, mapping, lam, beta)
        self.vectors_path = Path(vectors_path).expanduser() if vectors_path else None
        self.unknown: Unknown = unknown
        self.mechanism = mechanism
        self.epsilon = epsilon
        self.survival = survival
        self.space: Scale = space

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    @property
    def tuning_shows(self) -> frozenset[Observable]:
        return TUNING_SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> DpTextPrepared:
        public = self.published(bundle, public_text.corpus)
        channel = published_channel(public, bundle)
        return DpTextPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=(public,),
            guarantee=promise(public, channel, bundle),
            shows=self.shows,
            seed=seed,
            channel=channel,
            code=SanitisingCode(channel, seed),
            tuning_shows=self.tuning_shows,
        )

    def channel(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> TokenChannel:
        """The channel for a model.

        Args:
            bundle: the model, whose embedding is the metric unless vectors are given.
            corpus: token ids of public text, whose frequencies count.
        """
        return published_channel(self.published(bundle, corpus), bundle)

    def published(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> TokenChannelParameters:
        """What is published of the channel, its epsilon found from the survival share where none is given.

        Args:
            bundle: the model, whose embedding is the metric unless vectors are given.
            corpus: token ids of public text, whose frequencies count.
        """
        vectors = (
            token_vectors(self.vectors_path, bundle.tokenizer, bundle.geometry.vocab) if self.vectors_path else None
        )
        space, _ = metric_space(bundle, self.space, vectors)
        counted = token_frequencies(corpus, bundle.geometry.vocab)
        frequencies = counted if counted[space.private_ids].any() else counted + 1
        epsilon = self.epsilon
        if epsilon is None:
            assert self.survival is not None
            draft = token_channel(self.mechanism, space, 1.0, self.options, frequencies)
            (epsilon,) = token_epsilons(draft, frequencies, (self.survival,))
        return TokenChannelParameters(
            self.mechanism,
            epsilon,
            self.space,
            self.options,
            frequencies if counts_frequencies(self.mechanism, self.options) else None,
            vectors,
            self.unknown if vectors else None,
        )
