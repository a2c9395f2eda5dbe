"""A token channel from its public parameters: the same for the client that uses it and the attacker that knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy.typing as npt

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Scale
from smd_research.mechanisms.privacy.noisy_nearest import NoisyNearestChannel
from smd_research.mechanisms.privacy.survival import SURVIVAL_SHARES, dchi_epsilons, santext_epsilons
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel, TokenChannel
from smd_research.models.bundle import Bundle

TokenMechanism = Literal["santext", "dchi"]
TOKEN_MECHANISMS: tuple[TokenMechanism, ...] = get_args(TokenMechanism)


@dataclass(frozen=True)
class TokenChannelParameters:
    """What is published of a token channel: enough to write it down.

    Attributes:
        mechanism: ``santext`` or ``dchi``.
        epsilon: per token and unit of distance.
        space: ``unit`` (embedding rows of norm one) or ``raw``.
    """

    mechanism: TokenMechanism
    epsilon: float
    space: Scale


def bundle_space(bundle: Bundle, scale: Scale = "unit") -> EmbeddingSpace:
    """The metric space of a model: its input embedding, with special tokens and padding rows declared public."""
    vocab = bundle.geometry.vocab
    padding = range(min(len(bundle.tokenizer), vocab), vocab)
    return EmbeddingSpace.of(bundle.embedding, sorted({*(i for i in bundle.special_ids if i < vocab), *padding}), scale)


def token_channel(mechanism: str, space: EmbeddingSpace, epsilon: float) -> TokenChannel:
    """The channel called ``santext`` (exponential mechanism) or ``dchi`` (radial noise, nearest neighbour).

    Raises:
        ConfigError: for another name, or an epsilon that is not positive.
    """
    kinds: dict[str, type[TokenChannel]] = {"santext": ExponentialChannel, "dchi": NoisyNearestChannel}
    if mechanism not in kinds:
        raise ConfigError(f"mechanism={mechanism} is unknown: use one of {', '.join(TOKEN_MECHANISMS)}")
    return kinds[mechanism](space, epsilon)


def token_epsilons(
    mechanism: str, space: EmbeddingSpace, frequencies: npt.ArrayLike, shares: Sequence[float] = SURVIVAL_SHARES
) -> tuple[float, ...]:
    """The epsilons of a channel at which these shares of tokens survive, on public token frequencies.

    Args:
        mechanism: ``santext`` or ``dchi``.
        space: the metric space.
        frequencies: ``[V]`` counts of a public corpus, never of the prompts under evaluation.
        shares: between 0 and 1; six from 5 to 90 % by default.

    Raises:
        ConfigError: for an unknown mechanism or an unreachable share.
    """
    choose = {"santext": santext_epsilons, "dchi": dchi_epsilons}
    if mechanism not in choose:
        raise ConfigError(f"mechanism={mechanism} is unknown: use one of {', '.join(TOKEN_MECHANISMS)}")
    return choose[mechanism](space, frequencies, shares)
