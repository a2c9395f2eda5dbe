"""A model in two parts: what the trusted side keeps of every linear layer, and the model that the device holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smd_research.core.seeds import generator
from smd_research.defenses.slip.spec import SplitSpec
from smd_research.mechanisms.decomposition.splits import SplitMatrix, split
from smd_research.mechanisms.integers.fixed_point import Quantised, quantise_rows
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of, with_weights


@dataclass(frozen=True, repr=False)
class Decomposed:
    """The two parts.

    Attributes:
        splits: of every linear layer, by module name, in the order of the model; rank 0 where nothing is secret.
        quantised: the exposed parts as integers, by module name; None where they stay floating-point.
        exposed: the model that the device holds: the exposed parts as stored, everything else as it is.
    """

    splits: Mapping[str, SplitMatrix]
    quantised: Mapping[str, Quantised] | None
    exposed: Bundle

    @property
    def ranks(self) -> dict[str, int]:
        """Secret components by module name."""
        return {name: one.rank for name, one in self.splits.items()}

    def __repr__(self) -> str:
        return f"Decomposed({self.exposed.name!r}, {sum(map(bool, self.ranks.values()))} of {len(self.splits)} layers)"


def decompose(
    bundle: Bundle, spec: SplitSpec, bits: int | None, corpus: Sequence[Sequence[int]], seed: int
) -> Decomposed:
    """Divide every linear layer of a model, and round what is exposed.

    Args:
        bundle: stays untouched.
        spec: which layers keep how much.
        bits: of an exposed weight; None keeps floats.
        corpus: token ids of public text, for the budget rule.
        seed: for the secret choices of a split that makes any.

    Raises:
        ConfigError: see ``SplitSpec.ranks``.
        UnsupportedModelError: for a model that cannot be split.
    """
    layers = linear_layers(bundle)
    splits = {
        name: split(weight_of(layers[name]), rank, spec.kind, generator(seed, "slip", "split", name))
        for name, rank in spec.ranks(bundle, corpus).items()
    }
    quantised = None if bits is None else {name: quantise_rows(one.exposed, bits) for name, one in splits.items()}
    stored = (
        {name: one.exposed for name, one in splits.items()}
        if quantised is None
        else {name: one.dequantised() for name, one in quantised.items()}
    )
    return Decomposed(splits, quantised, with_weights(bundle, stored))
