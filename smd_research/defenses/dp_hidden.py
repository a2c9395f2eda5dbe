"""Split inference with noise on the hidden states.

``gaussian`` (the shape of DP-Forward, CCS 2023): clipped, with noise calibrated analytically for sensitivity ``2C``
(replacement). A row may be clipped and protected by itself only where it depends on one token alone, which is the
embedding; deeper, causal attention spreads a token over all later rows, so the whole message is clipped and protected
as one vector.

``dchi`` (token representation privatisation, Qu et al., CIKM 2021): radial noise on each row of the embedding, which
is not clipped; two tokens are told apart the better the further apart they lie. There only, since deeper no distance of
two tokens bounds that of the rows that depend on them.

A model can be tuned on noisy rows of the embedding: one fixed noisy copy of each text is sent, to tune on as to ask
about, and the provider reads its rows in the place of those of its own table.

Rows of generated tokens: at the embedding they are functions of tokens that the provider itself chose, and cross
without noise; deeper they depend on the prompt, and each is one more release, clipped and noised afresh.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError, NotApplicableError, UnsupportedModelError
from smd_research.core.guarantee import check_epsilon
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, PublicText
from smd_research.defenses.split import SHOWS, SplitDeployment, check_cut, cut_after
from smd_research.defenses.tunable import Tunable, TunablePrepared, VectorCode
from smd_research.mechanisms.privacy.embedding_space import EmbeddingSpace, Floats
from smd_research.mechanisms.privacy.gaussian import (
    CALIBRATIONS,
    UNITS,
    Calibration,
    GaussianMechanism,
    Unit,
    clip_rows,
)
from smd_research.mechanisms.privacy.noise import Sampler
from smd_research.mechanisms.privacy.radial import RadialMechanism
from smd_research.mechanisms.privacy.survival import check_share, dchi_epsilons, gaussian_epsilons, token_frequencies
from smd_research.mechanisms.split_inference import PermutationParameters, SplitParameters
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel
from smd_research.models.sources import DTYPES
from smd_research.models.tables import input_table

TUNING_SHOWS = frozenset({Observable.HIDDEN_STATES, Observable.LABELS, Observable.LENGTH})

Noise = Literal["gaussian", "dchi"]
MECHANISMS: tuple[Noise, ...] = get_args(Noise)

VectorMechanism: TypeAlias = GaussianMechanism | RadialMechanism

_CALIBRATION_DOCUMENTS = 32
_CALIBRATION_TOKENS = 64


@dataclass(frozen=True, repr=False, eq=False)
class NoisyEmbeddings(VectorCode):
    """One fixed noisy copy of each text's rows of the embedding: fresh draws would each cost the budget again.

    Attributes:
        bundle: the model.
        cut: at the embedding.
        mechanism: noises.
        seed: of the noise.
    """

    bundle: Bundle
    cut: SplitParameters
    mechanism: VectorMechanism
    seed: int

    def vectors(self, ids: Sequence[int], number: int) -> Tensor:
        """Noisy rows ``[n, width]``.

        Raises:
            UnsupportedModelError: for a model whose first block reads something else than rows of its embedding.
        """
        rng = generator(self.seed, "dp_hidden", "tune", number)
        return self.mechanism.release(self._table[list(ids)], rng).to(DTYPES[self.cut.wire_dtype])

    @cached_property
    def _table(self) -> Tensor:
        assert self.cut.layer == 0
        engine, table = ExtensionEngine(self.bundle, 0), embedding_rows(self.bundle)
        same = engine.same_everywhere and torch.equal(table, input_table(self.bundle).float().cpu())
        if not same:
            raise UnsupportedModelError(
                f"{self.bundle.name} scales its embedding or adds positions to it: a provider that is sent rows of it "
                "would do so again; tune a model that reads them as they are"
            )
        return table


class DpHiddenDeployment(SplitDeployment):
    """A client that clips and noises what it sends, a provider that runs the blocks after the cut.

    Args:
        bundle: the model.
        boundary: joins the parties.
        cut: where the model is cut.
        mechanism: noises.
        seed: of the noise.
    """

    def __init__(
        self, bundle: Bundle, boundary: Boundary, cut: SplitParameters, mechanism: VectorMechanism, seed: int
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
class DpHiddenPrepared(TunablePrepared):
    """A model to cut, and the noise on what crosses.

    Attributes:
        cut: where.
        mechanism: noises.
    """

    cut: SplitParameters
    mechanism: VectorMechanism

    def deploy(self, boundary: Boundary) -> DpHiddenDeployment:
        """Start the two parties."""
        return DpHiddenDeployment(self.bundle, boundary, self.cut, self.mechanism, self.seed)


class DpHidden(Tunable):
    """Differential privacy of the states at the cut, or of the rows that a model is tuned on.

    Args:
        mechanism: ``gaussian``, or ``dchi`` at layer 0.
        layer: how many blocks the client runs; 0 sends embeddings.
        epsilon: of one release, or with ``dchi`` of one row and unit of distance; wins over ``survival``.
        survival: choose epsilon so that for this share of tokens the nearest embedding row is still their own (layer 0
            only), on the frequencies of the public corpus.
        delta: of one release; Gaussian noise alone has one.
        clip: norm allowed to a row on average; by default the median row norm, of the public embedding at layer 0, of
            the public corpus's states deeper. Gaussian noise alone needs one.
        unit: ``token`` or ``sequence``; by default ``token`` at layer 0, ``sequence`` deeper.
        calibration: of Gaussian noise: ``corrected`` for sensitivity ``2C``, or ``released`` for one, as DP-Forward's
            code has it; the guarantee states what that gives.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range, a mechanism or ``unit=token`` where their guarantees do not reach, or no
            way to an epsilon.
    """

    def __init__(
        self,
        mechanism: Noise = "gaussian",
        layer: int = 0,
        epsilon: float | None = None,
        survival: float | None = 0.5,
        delta: float = 1e-5,
        clip: float | None = None,
        unit: Unit | None = None,
        calibration: Calibration = "corrected",
        wire_dtype: str = "fp32",
    ) -> None:
        self.cut = cut_after(layer, wire_dtype)
        self.unit: Unit = unit or ("token" if layer == 0 else "sequence")
        if mechanism not in MECHANISMS:
            raise ConfigError(f"defense.mechanism={mechanism} is unknown: use one of {', '.join(MECHANISMS)}")
        if calibration not in CALIBRATIONS:
            raise ConfigError(f"defense.calibration={calibration} is unknown: use one of {', '.join(CALIBRATIONS)}")
        if self.unit not in UNITS:
            raise ConfigError(f"defense.unit={unit} is unknown: use one of {', '.join(UNITS)}")
        if mechanism == "dchi" and (layer > 0 or self.unit != "token"):
            raise ConfigError(
                f"defense.mechanism=dchi promises nothing at layer {layer} with unit={self.unit}: only a row of the "
                "embedding is bounded by the distance of two tokens; use layer=0 and unit=token, or mechanism=gaussian"
            )
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
        if not 0 < delta < 1:
            raise ConfigError(f"defense.delta={delta:g} is out of range: it lies between 0 and 1")
        if epsilon is not None:
            check_epsilon(epsilon, "defense.epsilon")
        if survival is not None:
            check_share(survival, "defense.survival")
        check_clip(clip)
        self.noise = mechanism
        self.calibration = calibration
        self.epsilon = epsilon
        self.survival = survival
        self.delta = delta
        self.clip = clip

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    @property
    def tuning_shows(self) -> frozenset[Observable]:
        """What the provider sees of private tuning and inference.

        Raises:
            NotApplicableError: for a cut below the embedding: the provider would tune a part of the model alone.
        """
        if self.cut.layer:
            raise NotApplicableError(f"dp_hidden tunes on rows of the embedding alone, not of layer {self.cut.layer}")
        return TUNING_SHOWS

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
            code=NoisyEmbeddings(bundle, self.cut, mechanism, seed),
            tuning_shows=TUNING_SHOWS,
        )

    def mechanism(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> VectorMechanism:
        """The mechanism for a model, with the defaults that depend on it filled in.

        Args:
            bundle: the model.
            corpus: token ids of public text, for ``survival`` and for ``clip`` below the embedding.

        Raises:
            ConfigError: where there is neither a clipping norm nor text to set it.
        """
        table = embedding_rows(bundle) if self.cut.layer == 0 else None
        if self.noise == "dchi":
            assert table is not None
            return radial_mechanism(bundle, table, self.epsilon, self.survival, corpus)
        clip = self.clip or self._median_norm(bundle, table, corpus)
        epsilon = self.epsilon
        if epsilon is None:
            assert table is not None
            assert self.survival is not None
            space = EmbeddingSpace.of(clip_rows(table, clip), scale="raw")
            frequencies = _frequencies(bundle, corpus)
            assumed = 1.0 if self.calibration == "released" else 2.0 * clip  # the sensitivity that noise is scaled for
            (epsilon,) = gaussian_epsilons(space, frequencies, self.delta, assumed, (self.survival,))
        return GaussianMechanism(epsilon, self.delta, clip, self.unit, self.calibration)

    def _median_norm(self, bundle: Bundle, table: Tensor | None, corpus: Sequence[Sequence[int]]) -> float:
        if table is not None:
            return median_norm(table)
        if not corpus:
            raise ConfigError(f"dp_hidden at layer {self.cut.layer} needs defense.clip=C, or a public corpus to set it")
        model = HookedModel(bundle, None, self.cut.layer)
        norms = []
        for document in corpus[:_CALIBRATION_DOCUMENTS]:
            ids = torch.tensor([list(document[:_CALIBRATION_TOKENS])], device=bundle.device)
            states = model.forward(LocalAttention(), torch.arange(ids.shape[1], device=bundle.device), ids=ids)[0]
            norms.append(states.float().norm(dim=-1).cpu())
        return float(torch.cat(norms).median())


def embedding_rows(bundle: Bundle) -> Tensor:
    """What the embedding makes of every vocabulary entry ``[vocab, width]``, on the CPU in fp32."""
    return ExtensionEngine(bundle, 0).embedded(0).float().cpu()


def check_clip(clip: float | None) -> None:
    """Refuse a norm that nothing, or everything, is clipped to.

    Raises:
        ConfigError: unless it is None, or positive and finite.
    """
    if clip is not None and not 0 < clip < math.inf:
        raise ConfigError(f"defense.clip={clip:g} is out of range: it must be positive and finite")


def median_norm(table: Tensor) -> float:
    """The norm that half of a table's rows ``[vocab, width]`` reach."""
    return float(table.norm(dim=-1).median())


def radial_mechanism(
    bundle: Bundle,
    table: Tensor,
    epsilon: float | None,
    survival: float | None,
    corpus: Sequence[Sequence[int]],
    sampler: Sampler = "radial",
    clip: float | None = None,
) -> RadialMechanism:
    """Radial noise on the rows of a model's embedding.

    Args:
        bundle: the model.
        table: its rows ``[vocab, width]``.
        epsilon: of a row and unit of distance; None places it by ``survival``.
        survival: share of tokens that stay nearest to their noisy row, before it is clipped, under the radial law.
        corpus: token ids of public text, whose frequencies weigh the tokens.
        sampler: of the noise.
        clip: norm of a noisy row.
    """
    space = EmbeddingSpace.of(table, scale="raw")
    if epsilon is None:
        assert survival is not None
        (epsilon,) = dchi_epsilons(space, _frequencies(bundle, corpus), (survival,))
    return RadialMechanism(epsilon, bundle.geometry.width, space.diameter_bound, sampler, clip)


def _frequencies(bundle: Bundle, corpus: Sequence[Sequence[int]]) -> Floats:
    """How often each token stands in public text ``[vocab]``; equal where there is none."""
    counted = token_frequencies(corpus, bundle.geometry.vocab)
    return counted if counted.any() else np.ones(bundle.geometry.vocab)
