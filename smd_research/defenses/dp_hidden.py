"""Split inference with clipped Gaussian noise on the hidden states (the shape of DP-Forward, CCS 2023).

Noise is calibrated analytically for sensitivity ``2C`` (replacement). A row may be clipped and protected by itself only
where it depends on one token alone, which is the embedding; deeper, causal attention spreads a token over all later
rows, so the whole message is clipped and protected as one vector.

Rows of generated tokens: at the embedding they are functions of tokens that the provider itself chose, and cross
without noise; deeper they depend on the prompt, and each is one more release, clipped and noised afresh.
"""

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
from smd_research.defenses.split import SHOWS, SplitDeployment, check_cut, cut_after
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace
from smd_research.mechanisms.privacy.gaussian import GaussianMechanism, Unit, clip_rows, gaussian_sigma
from smd_research.mechanisms.privacy.survival import gaussian_epsilons, token_frequencies
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel
from smd_research.models.sources import DTYPES

_CALIBRATION_DOCUMENTS = 32
_CALIBRATION_TOKENS = 64


class DpHiddenDeployment(SplitDeployment):
    """A client that clips and noises what it sends, a provider that runs the blocks after the cut.

    Args:
        bundle: the model.
        boundary: joins the parties.
        cut: where the model is cut.
        mechanism: clips and noises.
        seed: of the noise.
    """

    def __init__(
        self, bundle: Bundle, boundary: Boundary, cut: SplitParameters, mechanism: GaussianMechanism, seed: int
    ) -> None:
        super().__init__(bundle, boundary, cut, PermutationParameters(), seed)
        self._mechanism = mechanism
        self._noise = np.random.default_rng(0)

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        self._noise = generator(self._seed, "dp_hidden", "noise", self.draw)

    def sent(self, ids: Sequence[int], position: int) -> Tensor:
        """States ``[rows, width]`` as they cross: with fresh noise, but for rows of public tokens."""
        states = self._split_client.hidden(ids, position)
        if position == 0 or self._cut.layer > 0:
            states = self._mechanism.release(states, self._noise)
        return states.to(DTYPES[self._cut.wire_dtype])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class DpHiddenPrepared(Prepared):
    """A model to cut, and the noise on what crosses.

    Attributes:
        cut: where.
        mechanism: clips and noises.
    """

    cut: SplitParameters
    mechanism: GaussianMechanism

    def deploy(self, boundary: Boundary) -> DpHiddenDeployment:
        """Start the two parties."""
        return DpHiddenDeployment(self.bundle, boundary, self.cut, self.mechanism, self.seed)


class DpHidden(Defense):
    """Gaussian differential privacy on the states at the cut.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        epsilon: of one release; wins over ``survival``.
        survival: choose epsilon so that for this share of tokens the nearest embedding row is still their own (layer 0
            only), on the frequencies of the public corpus.
        delta: of one release.
        clip: norm allowed to a row on average; by default the median row norm, of the public embedding at layer 0, of
            the public corpus's states deeper.
        unit: ``token`` or ``sequence``; by default ``token`` at layer 0, ``sequence`` deeper.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range, ``unit=token`` below the embedding, or no way to an epsilon.
    """

    def __init__(
        self,
        layer: int = 0,
        epsilon: float | None = None,
        survival: float | None = 0.5,
        delta: float = 1e-5,
        clip: float | None = None,
        unit: Unit | None = None,
        wire_dtype: str = "fp32",
    ) -> None:
        self.cut = cut_after(layer, wire_dtype)
        self.unit: Unit = unit or ("token" if layer == 0 else "sequence")
        if layer > 0 and self.unit == "token":
            raise ConfigError(
                f"defense.unit=token is unsound at layer {layer}: a row there depends on every earlier token; "
                "use unit=sequence, or layer=0"
            )
        by_survival = self.unit == "token" and survival is not None
        if epsilon is None and not by_survival:
            raise ConfigError(
                f"dp_hidden needs defense.epsilon=E at layer {layer} with unit={self.unit} "
                "(defense.survival=S places it for unit=token only)"
            )
        if epsilon is not None:
            gaussian_sigma(epsilon, delta)
        if clip is not None and clip <= 0:
            raise ConfigError(f"defense.clip={clip:g} is out of range: it must be positive")
        self.epsilon = epsilon
        self.survival = survival
        self.delta = delta
        self.clip = clip

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> DpHiddenPrepared:
        check_cut(self.cut, bundle)
        mechanism = self.mechanism(bundle, public_text.corpus)
        return DpHiddenPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=(self.cut, mechanism.parameters),
            guarantee=mechanism.guarantee(),
            shows=self.shows,
            seed=seed,
            cut=self.cut,
            mechanism=mechanism,
        )

    def mechanism(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> GaussianMechanism:
        """The mechanism for a model, with the defaults that depend on it filled in.

        Args:
            bundle: the model.
            corpus: token ids of public text, for ``survival`` and for ``clip`` below the embedding.

        Raises:
            ConfigError: where there is neither a clipping norm nor text to set it.
        """
        table = ExtensionEngine(bundle, 0).embedded(0).float().cpu() if self.cut.layer == 0 else None
        clip = self.clip or self._median_norm(bundle, table, corpus)
        epsilon = self.epsilon
        if epsilon is None:
            assert table is not None
            assert self.survival is not None
            epsilon = self._epsilon_of_survival(bundle, clip_rows(table, clip), clip, self.survival, corpus)
        return GaussianMechanism(epsilon, self.delta, clip, self.unit)

    def _median_norm(self, bundle: Bundle, table: Tensor | None, corpus: Sequence[Sequence[int]]) -> float:
        if table is not None:
            return float(table.norm(dim=-1).median())
        if not corpus:
            raise ConfigError(f"dp_hidden at layer {self.cut.layer} needs defense.clip=C, or a public corpus to set it")
        model = HookedModel(bundle, None, self.cut.layer)
        norms = []
        for document in corpus[:_CALIBRATION_DOCUMENTS]:
            ids = torch.tensor([list(document[:_CALIBRATION_TOKENS])], device=bundle.device)
            states = model.forward(LocalAttention(), torch.arange(ids.shape[1], device=bundle.device), ids=ids)[0]
            norms.append(states.float().norm(dim=-1).cpu())
        return float(torch.cat(norms).median())

    def _epsilon_of_survival(
        self, bundle: Bundle, rows: Tensor, clip: float, share: float, corpus: Sequence[Sequence[int]]
    ) -> float:
        space = EmbeddingSpace.of(rows, scale="raw")
        counted = token_frequencies(corpus, bundle.geometry.vocab)
        frequencies = counted if counted.any() else np.ones(bundle.geometry.vocab)
        (epsilon,) = gaussian_epsilons(space, frequencies, self.delta, 2.0 * clip, (share,))
        return epsilon
