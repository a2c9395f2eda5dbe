"""A token channel from its public parameters: the same for the client that uses it and the attacker that knows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from smd_research.core.errors import ConfigError
from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.customised_sets import (
    MAPPINGS,
    CustomisedChannel,
    Mapping,
    OwnListsChannel,
    SharedSetsChannel,
    partition,
)
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats, Ids, Scale
from smd_research.mechanisms.privacy.mahalanobis import MahalanobisChannel
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.random_lists import RandomListChannel
from smd_research.mechanisms.privacy.sensitive_words import SensitiveWordsChannel, rarest
from smd_research.mechanisms.privacy.survival import (
    SURVIVAL_SHARES,
    custext_epsilons,
    dchi_epsilons,
    mahalanobis_epsilons,
    santext_epsilons,
    santext_plus_epsilons,
    tem_epsilons,
)
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, FiniteChannel, TokenChannel
from smd_research.mechanisms.privacy.truncated_exponential import TruncatedExponentialChannel
from smd_research.mechanisms.privacy.unknown_tokens import UniformUnknown, Unknown
from smd_research.mechanisms.privacy.word_vectors import TokenVectors
from smd_research.models.bundle import Bundle

TokenMechanism = Literal["santext", "santext_plus", "custext", "tem", "dchi", "mahalanobis", "rantext"]
TOKEN_MECHANISMS: tuple[TokenMechanism, ...] = get_args(TokenMechanism)
UNIFORM_NEEDS_PROBABILITIES = (
    "defense.unknown=uniform needs a mechanism whose probabilities can be written down: with dchi and mahalanobis use "
    "defense.unknown=refuse or public"
)


@dataclass(frozen=True)
class TokenOptions:
    """What some mechanisms take besides epsilon.

    Attributes:
        sensitive_share: ``w`` of ``santext_plus``, the least frequent share of the vocabulary, which is protected.
        resampled: ``p`` of ``santext_plus``, probability that a token outside that share does not pass.
        set_size: ``K`` of ``custext``, outputs of a token.
        mapping: of ``custext``: ``partition`` (one set for all of its members) or ``own`` (a list for each token).
        lam: ``lambda`` of ``mahalanobis``, weight of the table's covariance.
        beta: of ``tem``, share of outputs that may lie beyond where distances are cut off.

    Raises:
        ConfigError: for a value out of range.
    """

    sensitive_share: float = 0.9
    resampled: float = 0.3
    set_size: int = 20
    mapping: Mapping = "partition"
    lam: float = 0.2
    beta: float = 0.001

    def __post_init__(self) -> None:
        for name, value, inside, words in (
            ("sensitive_share", self.sensitive_share, 0 < self.sensitive_share <= 1, "above 0 and at most 1"),
            ("resampled", self.resampled, 0 < self.resampled <= 1, "above 0 and at most 1"),
            ("set_size", self.set_size, self.set_size >= 2, "2 or more"),
            ("lam", self.lam, 0 <= self.lam < 1, "0 or more, and below 1"),
            ("beta", self.beta, 0 < self.beta < 0.5, "between 0 and 0.5"),
        ):
            if not inside:
                raise ConfigError(f"defense.{name}={value:g} is out of range: it is {words}")
        if self.mapping not in MAPPINGS:
            raise ConfigError(f"defense.mapping={self.mapping} is unknown: use one of {', '.join(MAPPINGS)}")


DEFAULTS = TokenOptions()


@dataclass(frozen=True)
class TokenChannelParameters:
    """What is published of a token channel: enough to write it down.

    Attributes:
        mechanism: its name.
        epsilon: per token, and unit of distance where the mechanism has one.
        space: ``unit`` (rows of norm one) or ``raw``.
        options: of the mechanism.
        frequencies: ``[V]`` counts of the public corpus, where the mechanism goes by them.
        vectors: that stand for the model's embedding table.
        unknown: what becomes of tokens without a vector; None where each has one.
    """

    mechanism: TokenMechanism
    epsilon: float
    space: Scale
    options: TokenOptions = DEFAULTS
    frequencies: Floats | None = field(default=None, repr=False, compare=False)
    vectors: TokenVectors | None = field(default=None, compare=False)
    unknown: Unknown | None = None


def published_channel(public: TokenChannelParameters, bundle: Bundle) -> TokenChannel:
    """The channel that these parameters describe, over a model's tokens.

    Raises:
        ConfigError: for parameters that do not go together.
    """
    space, unknown_ids = metric_space(bundle, public.space, public.vectors, public.unknown)
    channel = token_channel(public.mechanism, space, public.epsilon, public.options, public.frequencies)
    return with_unknown(channel, unknown_ids, public.unknown)


def metric_space(
    bundle: Bundle, scale: Scale, vectors: TokenVectors | None = None, unknown: Unknown | None = None
) -> tuple[EmbeddingSpace, Ids]:
    """The metric space of a model or of given vectors, and the tokens that have no vector.

    These are public there: under ``uniform`` a channel around it draws for them, under ``refuse`` the space refuses.
    """
    space = bundle_space(bundle, scale)
    if vectors is None:
        return space, np.empty(0, dtype=np.int64)
    known = np.intersect1d(vectors.known_ids, space.private_ids)
    unknown_ids = np.setdiff1d(space.private_ids, known)
    public = np.setdiff1d(np.arange(space.vocab_size), known)
    given = EmbeddingSpace.of(vectors.rows, public.tolist(), scale)
    refused = unknown_ids if unknown == "refuse" else unknown_ids[:0]
    return EmbeddingSpace(given.rows, given.private_ids, scale, refused), unknown_ids


def with_unknown(channel: TokenChannel, unknown_ids: Ids, unknown: Unknown | None) -> TokenChannel:
    """The channel with the policy for tokens without a vector around it.

    Raises:
        ConfigError: where ``uniform`` does not go with the mechanism.
    """
    if unknown != "uniform" or not len(unknown_ids):
        return channel
    if not isinstance(channel, FiniteChannel):
        raise ConfigError(UNIFORM_NEEDS_PROBABILITIES)
    return UniformUnknown(channel.space, channel.epsilon, inner=channel, unknown_ids=unknown_ids)


def promise(public: TokenChannelParameters, channel: TokenChannel, bundle: Bundle) -> Guarantee:
    """What a channel promises, with the number of tokens that pass for want of a vector.

    Args:
        public: the parameters of the channel.
        channel: which they describe.
        bundle: the model.
    """
    found = channel.guarantee()
    if public.unknown != "public":
        return found
    passing = channel.vocab_size - len(channel.space.private_ids) - len(_public_ids(bundle))
    added = f"{passing} of {channel.vocab_size} tokens have no vector and pass: nothing protects them"
    return replace(found, assumptions=f"{found.assumptions}; {added}")


def bundle_space(bundle: Bundle, scale: Scale = "unit") -> EmbeddingSpace:
    """The metric space of a model: its input embedding, with special tokens and padding rows declared public."""
    return EmbeddingSpace.of(bundle.embedding, _public_ids(bundle), scale)


def _public_ids(bundle: Bundle) -> list[int]:
    vocab = bundle.geometry.vocab
    padding = range(min(len(bundle.tokenizer), vocab), vocab)
    return sorted({*(i for i in bundle.special_ids if i < vocab), *padding})


def counts_frequencies(mechanism: str, options: TokenOptions = DEFAULTS) -> bool:
    """Whether a mechanism goes by the frequencies of public text."""
    return mechanism == "santext_plus" or (mechanism == "custext" and options.mapping == "partition")


def token_channel(
    mechanism: str,
    space: EmbeddingSpace,
    epsilon: float,
    options: TokenOptions = DEFAULTS,
    frequencies: npt.ArrayLike | None = None,
) -> TokenChannel:
    """The channel of a mechanism.

    Args:
        mechanism: one of :data:`~smd_research.mechanisms.privacy.channels.TOKEN_MECHANISMS`.
        space: the metric space.
        epsilon: privacy parameter.
        options: what some take besides.
        frequencies: ``[V]`` counts of a public corpus; None: all tokens alike.

    Raises:
        ConfigError: for another name, or a value out of range.
    """
    counts = np.ones(space.vocab_size) if frequencies is None else np.asarray(frequencies, dtype=np.float64)
    match mechanism:
        case "santext":
            return ExponentialChannel(space, epsilon)
        case "santext_plus":
            sensitive = rarest(space, counts, options.sensitive_share)
            return SensitiveWordsChannel(space, epsilon, sensitive, options.resampled)
        case "custext" if options.mapping == "own":
            return OwnListsChannel(space, epsilon, options.set_size)
        case "custext":
            return SharedSetsChannel(space, epsilon, options.set_size, partition(space, counts, options.set_size))
        case "tem":
            return TruncatedExponentialChannel(space, epsilon, options.beta)
        case "dchi":
            return NoisyNearestChannel(space, epsilon)
        case "mahalanobis":
            return MahalanobisChannel(space, epsilon, options.lam)
        case "rantext":
            return RandomListChannel(space, epsilon)
    raise ConfigError(f"mechanism={mechanism} is unknown: use one of {', '.join(TOKEN_MECHANISMS)}")


def token_epsilons(
    channel: TokenChannel, frequencies: npt.ArrayLike, shares: Sequence[float] = SURVIVAL_SHARES
) -> tuple[float, ...]:
    """The epsilons at which these shares of tokens survive a channel like this one, on public token frequencies.

    Args:
        channel: whatever its epsilon.
        frequencies: ``[V]`` counts of a public corpus, never of the prompts under evaluation.
        shares: between 0 and 1; six from 5 to 90 % by default.

    Raises:
        ConfigError: for an unreachable share, or a mechanism whose survival does not follow epsilon.
    """
    space = channel.space
    match channel:
        case TruncatedExponentialChannel():
            return tem_epsilons(space, frequencies, channel.beta, shares)
        case ExponentialChannel():
            return santext_epsilons(space, frequencies, shares)
        case SensitiveWordsChannel():
            return santext_plus_epsilons(space, frequencies, channel.sensitive_ids, channel.resampled, shares)
        case CustomisedChannel():
            return custext_epsilons(channel, frequencies, shares)
        case MahalanobisChannel():
            return mahalanobis_epsilons(space, frequencies, channel.lam, shares)
        case NoisyNearestChannel():
            return dchi_epsilons(space, frequencies, shares)
    raise ConfigError("rantext needs defense.epsilon=E: the share of tokens that survive does not follow its epsilon")
