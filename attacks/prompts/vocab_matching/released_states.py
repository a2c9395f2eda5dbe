"""Hidden states sent through a public release with noise: the same beam search under the release's own likelihood."""

from torch import Tensor

from attacks.base import Public
from attacks.prompts.vocab_matching.linear_inverse import LinearInverse
from attacks.prompts.vocab_matching.noisy_states import NoisyStateSearch
from smd_research.mechanisms.releases import Release
from smd_research.models.extension import ExtensionEngine


class ReleasedStateSearch(NoisyStateSearch):
    """Beam search over tokens for one view of what a release sent.

    Args:
        public: what the adversary knows.
        engine: truncated at the observed layer.
        release: what the client sends of its states.
        beam: hypotheses carried.
        inverse: as in ``NoisyStateSearch``.
    """

    def __init__(
        self, public: Public, engine: ExtensionEngine, release: Release, beam: int, inverse: LinearInverse | None
    ) -> None:
        super().__init__(public, engine, 1.0, beam, inverse)
        self._release = release

    def _likelihood(self, states: Tensor, observed: Tensor) -> Tensor:
        return self._release.log_density(states, observed)
