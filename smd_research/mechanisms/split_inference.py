"""What split inference publishes: where the model is cut, and in which order what crosses stands."""

from dataclasses import dataclass
from typing import Literal, get_args

Permute = Literal["none", "sequence", "hidden", "both"]
PERMUTATIONS: tuple[Permute, ...] = get_args(Permute)


@dataclass(frozen=True)
class SplitParameters:
    """The cut between a client's blocks and a provider's.

    Attributes:
        layer: blocks that the client runs; 0 sends embeddings.
        wire_dtype: type in which hidden states cross, e.g. ``fp32``.
    """

    layer: int
    wire_dtype: str = "fp32"


@dataclass(frozen=True)
class PermutationParameters:
    """What stands in a secret order; not published where nothing does by design.

    Attributes:
        permute: ``none``, ``sequence`` (rows), ``hidden`` (features) or ``both``.
    """

    permute: Permute = "none"

    @property
    def rows(self) -> bool:
        """Whether rows are in a secret order."""
        return self.permute in ("sequence", "both")

    @property
    def features(self) -> bool:
        """Whether features are in a secret order."""
        return self.permute in ("hidden", "both")
