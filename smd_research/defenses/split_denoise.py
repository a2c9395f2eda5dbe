"""Split-and-Denoise (arXiv 2310.09130, ICML 2024): noisy embeddings go out, states come back, the client denoises them.

The client adds radial noise to each embedding and clips what comes out; the provider runs all blocks and returns the
states; a small transformer at the client, which knows the clean embeddings and the noise, predicts what would have come
back without it, and the client's head reads the next token from that.

Reconstructed: the paper denoises one pooled embedding of a text, for classification. Here every position's last state
is denoised, causally, so that text can be generated. The provider then never learns a token: the next one goes out as a
noisy embedding like those before, one more release.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smd_research.boundary import Boundary, Channel
from smd_research.boundary.messages import HiddenStates, Message
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.core.guarantee import Guarantee, check_epsilon
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, Client, Defense, Deployment, Memory, Prepared, PublicText
from smd_research.defenses.dp_hidden import check_clip, embedding_rows, median_norm, radial_mechanism
from smd_research.defenses.split import SplitProvider, cut_after
from smd_research.mechanisms.privacy.noise import SAMPLERS, Sampler
from smd_research.mechanisms.privacy.radial import RadialMechanism
from smd_research.mechanisms.privacy.survival import check_share
from smd_research.mechanisms.split_inference import SplitParameters
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.sources import DTYPES
from smd_research.training.denoiser import Denoiser, NoisyRows, train_denoiser

SHOWS = frozenset({Observable.HIDDEN_STATES, Observable.LENGTH})

_TOKENS = 64
_BATCH = 16
_LEARNING_RATE = 1e-3


class StateProvider(SplitProvider):
    """Runs all blocks on embeddings and answers with the last states, row by row."""

    def __init__(self, bundle: Bundle, channel: Channel) -> None:
        super().__init__(bundle, 0, False, channel)
        self._model = HookedModel(bundle, 0, bundle.geometry.layers)

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, HiddenStates):
            raise ProtocolError(f"the provider does not serve {type(message).__name__}")
        self._check(message)
        if message.position == 0:
            self._attention = LocalAttention()
        hidden = message.hidden.to(self._bundle.device, self._bundle.dtype).unsqueeze(0)
        positions = torch.arange(message.position, message.position + hidden.shape[1], device=hidden.device)
        states = self._model.forward(self._attention, positions, hidden=hidden)[0]
        return HiddenStates(states.to(message.hidden.dtype), message.position)


@dataclass(frozen=True)
class DenoiserRecipe:
    """What a denoiser is trained with.

    Attributes:
        steps: of the optimiser; 0 trains none, and what comes back is read as it is.
        documents: of the public text.
        draws: of the noise for each of them.
        layers: of the transformer.
        width: of the transformer.

    Raises:
        ConfigError: for a value out of range.
    """

    steps: int
    documents: int
    draws: int
    layers: int
    width: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"defense.steps={self.steps} is out of range: use 0 (no denoiser) or more")
        if min(self.documents, self.draws, self.layers) < 1 or self.width < 32 or self.width % 32:
            raise ConfigError(
                "defense: documents, draws and layers are at least 1, and width is a multiple of 32, not "
                f"{self.documents}, {self.draws}, {self.layers} and {self.width}"
            )


@lru_cache(maxsize=4)
def fitted(
    bundle: Bundle, corpus: tuple[tuple[int, ...], ...], mechanism: RadialMechanism, recipe: DenoiserRecipe, seed: int
) -> Denoiser:
    """A denoiser trained on public text under a mechanism's noise; kept for the next cell of the process.

    Args:
        bundle: the model.
        corpus: token ids of public documents.
        mechanism: noises the embeddings.
        recipe: of the training.
        seed: of noise and training.
    """
    rows = noisy_rows(bundle, corpus[: recipe.documents], mechanism, recipe.draws, generator(seed, "denoiser", "noise"))
    drawn = int(generator(seed, "denoiser", "training").integers(2**62))
    return train_denoiser(
        rows,
        drawn,
        steps=recipe.steps,
        batch=_BATCH,
        inner=recipe.width,
        layers=recipe.layers,
        learning_rate=_LEARNING_RATE,
    )


@torch.inference_mode()
def noisy_rows(
    bundle: Bundle,
    documents: Sequence[Sequence[int]],
    mechanism: RadialMechanism,
    draws: int,
    rng: np.random.Generator,
) -> NoisyRows:
    """Documents run through the model with and without noise, their first tokens.

    Args:
        bundle: the model.
        documents: token ids.
        mechanism: noises the embeddings.
        draws: of the noise for each document.
        rng: of the noise.
    """
    length = min(_TOKENS, max(len(one) for one in documents), bundle.geometry.context)
    parts = [_of_document(bundle, one[:length], mechanism, rng) for one in documents for _ in range(draws)]
    padded = [torch.nn.utils.rnn.pad_sequence([row[i] for row in parts], batch_first=True) for i in range(4)]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row[0])) for row in parts], batch_first=True)
    return NoisyRows(padded[0], padded[1], padded[2], padded[3], mask)


def _of_document(
    bundle: Bundle, ids: Sequence[int], mechanism: RadialMechanism, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States that come back, embeddings, noise and clean states ``[tokens, width]`` of one document; fp32, CPU."""
    layers, device = bundle.geometry.layers, bundle.device
    where = torch.arange(len(ids), device=device)
    embedded = HookedModel(bundle, None, 0).forward(
        LocalAttention(), where, ids=torch.tensor([list(ids)], device=device)
    )
    model, sent = HookedModel(bundle, 0, layers), mechanism.release(embedded[0], rng)
    returned, target = (model.forward(LocalAttention(), where, hidden=one)[0] for one in (sent[None], embedded))
    return (
        returned.float().cpu(),
        embedded[0].float().cpu(),
        (sent - embedded[0]).float().cpu(),
        target.float().cpu(),
    )


class DenoisingClient(Client):
    """Embeds, noises, and reads the next token from what comes back.

    Args:
        bundle: the model, of which the client runs embedding, last norm and head.
        mechanism: noises the embeddings.
        denoiser: knows what came of them; None takes them as they are.
        wire: type in which states cross.
    """

    def __init__(
        self, bundle: Bundle, mechanism: RadialMechanism, denoiser: Denoiser | None, wire: torch.dtype
    ) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self._bundle, self._mechanism, self._denoiser, self._wire = bundle, mechanism, denoiser, wire
        self._embed, self._read = HookedModel(bundle, None, 0), HookedModel(bundle, bundle.geometry.layers)
        self._history: list[list[Tensor]] = []

    def restart(self) -> None:
        super().restart()
        self._history = [[], [], []]

    @torch.inference_mode()
    def send(self, ids: Sequence[int], position: int) -> Tensor:
        """Noisy embeddings ``[rows, width]`` of new tokens at ``position ..``, as they cross."""
        device = self._bundle.device
        where = torch.arange(position, position + len(ids), device=device)
        clean = self._embed.forward(LocalAttention(), where, ids=torch.tensor([list(ids)], device=device))[0]
        sent = self._mechanism.release(clean, self.rng).to(self._wire)
        self._history[1].append(clean.float().cpu())
        self._history[2].append((sent.to(clean.dtype) - clean).float().cpu())
        return sent

    @torch.inference_mode()
    def logits(self, returned: Tensor) -> Tensor:
        """Logits ``[vocab]`` of the next token, from the states ``[rows, width]`` that came back for what was sent."""
        self._history[0].append(returned.float().cpu())
        state = returned[-1:].float()
        if self._denoiser is not None:
            state = self._denoiser(*(torch.cat(part)[None] for part in self._history))[0, -1:]
        where = torch.tensor([sum(len(part) for part in self._history[0]) - 1], device=self._bundle.device)
        hidden = state.to(self._bundle.device, self._bundle.dtype)[None]
        return self._read.forward(LocalAttention(), where, hidden=hidden)[0, -1]

    @property
    def held_bytes(self) -> int:
        """Bytes of what the client remembers of the request."""
        return sum(one.nbytes for part in self._history for one in part)


class SplitDenoiseDeployment(Deployment):
    """A client that noises and denoises, a provider that runs the blocks between."""

    def __init__(self, prepared: "SplitDenoisePrepared", boundary: Boundary) -> None:
        wire = DTYPES[prepared.cut.wire_dtype]
        self._denoising = DenoisingClient(prepared.bundle, prepared.mechanism, prepared.denoiser, wire)
        super().__init__(prepared.bundle, boundary, self._denoising, SHOWS)
        self._seed = prepared.seed
        self._channel = boundary.open(self._denoising, partial(StateProvider, prepared.bundle))

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        self._denoising.rng = generator(self._seed, "split_denoise", "noise", self.draw)

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """None: the client alone reads tokens."""
        return ()

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        feed, position = list(ids), 0
        logits: list[Tensor] = []
        for step in range(max_new_tokens):
            answer = self._channel.request(HiddenStates(self._denoising.send(feed, position), position))
            if not isinstance(answer, HiddenStates) or len(answer.hidden) != len(feed):
                raise ProtocolError(f"the provider answered embeddings with {type(answer).__name__}")
            found = self._denoising.logits(answer.hidden)
            token = int(found.argmax()) if forced is None else forced[step]
            if forced is not None:
                logits.append(found)
            self._denoising.take(token)
            if forced is None and token in self.bundle.end_ids:
                break
            position += len(feed)
            feed = [token]
        return logits

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], self._denoising.held_bytes, held["kv"])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class SplitDenoisePrepared(Prepared):
    """A model, the noise on its embeddings, and what the client undoes it with.

    Attributes:
        cut: at the embedding.
        mechanism: noises.
        denoiser: of the client; None where none was trained.
    """

    cut: SplitParameters
    mechanism: RadialMechanism
    denoiser: Denoiser | None

    def deploy(self, boundary: Boundary) -> SplitDenoiseDeployment:
        """Start the two parties."""
        return SplitDenoiseDeployment(self, boundary)


class SplitDenoise(Defense):
    """Split-and-Denoise.

    Args:
        epsilon: of one row and unit of distance (the paper's eta); wins over ``survival``.
        survival: choose epsilon so that for this share of tokens the nearest embedding row is still their own, before
            the clipping and under the radial law, on the frequencies of the public corpus.
        clip: largest norm of a noisy row; by default the median norm of the public embedding.
        sampler: ``radial``, or ``released``, as the paper's code draws noise.
        steps: of the denoiser's training; 0 trains none, and what comes back is read as it is.
        documents: of the public text to train it on.
        draws: of the noise for each of them.
        layers: of the denoiser.
        width: of the denoiser, a multiple of 32.
        wire_dtype: type in which states cross.

    Raises:
        ConfigError: for a value out of range, or no way to an epsilon.
    """

    def __init__(
        self,
        epsilon: float | None = None,
        survival: float | None = 0.5,
        clip: float | None = None,
        sampler: Sampler = "radial",
        steps: int = 300,
        documents: int = 256,
        draws: int = 2,
        layers: int = 2,
        width: int = 128,
        wire_dtype: str = "fp32",
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"defense.sampler={sampler} is unknown: use one of {', '.join(SAMPLERS)}")
        if epsilon is None and survival is None:
            raise ConfigError("split_denoise needs defense.epsilon=E, or defense.survival=S to place it")
        if epsilon is not None:
            check_epsilon(epsilon, "defense.epsilon")
        if survival is not None:
            check_share(survival, "defense.survival")
        check_clip(clip)
        self.cut = cut_after(0, wire_dtype)
        self.epsilon, self.survival, self.clip, self.sampler = epsilon, survival, clip, sampler
        self.recipe = DenoiserRecipe(steps, documents, draws, layers, width)

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> SplitDenoisePrepared:
        mechanism = self.mechanism(bundle, public_text.corpus)
        denoiser = None  # a provider that is started by itself has no text, and needs none
        if public_text.corpus and self.recipe.steps:
            corpus = tuple(tuple(document) for document in public_text.corpus)
            denoiser = fitted(bundle, corpus, mechanism, self.recipe, seed)
        return SplitDenoisePrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=(self.cut, mechanism.parameters),
            guarantee=_promise(mechanism),
            shows=self.shows,
            seed=seed,
            cut=self.cut,
            mechanism=mechanism,
            denoiser=denoiser,
        )

    def mechanism(self, bundle: Bundle, corpus: Sequence[Sequence[int]] = ()) -> RadialMechanism:
        """The mechanism for a model, with the defaults that depend on it filled in.

        Args:
            bundle: the model.
            corpus: token ids of public text, for ``survival``.
        """
        table = embedding_rows(bundle)
        clip = self.clip or median_norm(table)
        return radial_mechanism(bundle, table, self.epsilon, self.survival, corpus, self.sampler, clip)


def _promise(mechanism: RadialMechanism) -> Guarantee:
    """The mechanism's, with what a request costs beyond its prompt."""
    found = mechanism.guarantee()
    return replace(
        found,
        composition=f"{found.composition}; every generated token is one more row, of another text where prompts differ",
        assumptions=f"{found.assumptions}; the length of the answer is visible; the denoiser learns from public text",
    )
