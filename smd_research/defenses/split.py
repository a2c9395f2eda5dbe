"""Split inference: the client runs the embedding and the first blocks, the provider the rest; hidden states cross.

Optionally under the published permutation schemes. ``hidden``: features in a secret order, the provider holding
weights permuted to match (STIP). ``sequence``: rows in a secret order, fresh for each message; the provider does all
row-wise work (projections, norms, MLP) and the client the parameter-free attention with rotary embedding, so that the
order is never needed at the provider (the shape of PermLLM and Centaur). ``both``: the two together. Every variant is
exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smd_research.boundary import Boundary, Channel
from smd_research.boundary.messages import (
    AttentionContext,
    AttentionInputs,
    HiddenStates,
    Message,
    Tokens,
)
from smd_research.core.errors import ConfigError, ProtocolError
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.defenses.base import NO_TEXT, Client, Defense, Deployment, Memory, Prepared, Provider, PublicText
from smd_research.mechanisms.split_inference import PERMUTATIONS, PermutationParameters, Permute, SplitParameters
from smd_research.models.attention import AttentionSpec, KVStore, LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel
from smd_research.models.permuted import permuted
from smd_research.models.rotation import rotation_of
from smd_research.models.sources import DTYPES

SHOWS = frozenset({Observable.HIDDEN_STATES, Observable.OUTPUT_TOKENS, Observable.LENGTH})


class SplitProvider(Provider):
    """Runs the blocks after the cut and answers with the greedy token of the last row, or of every row."""

    def __init__(self, bundle: Bundle, layer: int, rows_hidden: bool, channel: Channel) -> None:
        super().__init__(channel, bundle.end_ids)
        self._bundle = bundle
        self._model = HookedModel(bundle, layer)
        self._rows_hidden = rows_hidden
        self._attention = LocalAttention()

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, HiddenStates):
            raise ProtocolError(f"the provider does not serve {type(message).__name__}")
        self._check(message)
        hidden = message.hidden.to(self._bundle.device, self._bundle.dtype).unsqueeze(0)
        rows = hidden.shape[1]
        if self._rows_hidden:
            # at position 0 nothing is turned: the client turns, it alone knows the positions
            positions = torch.zeros(rows, dtype=torch.long, device=hidden.device)
            logits = self._model.forward(_AskClient(self.channel), positions, hidden=hidden)[0]
        else:
            if message.position == 0:
                self._attention = LocalAttention()
            positions = torch.arange(message.position, message.position + rows, device=hidden.device)
            logits = self._model.forward(self._attention, positions, hidden=hidden, last_only=True)[0]
        self.keep(logits)
        return Tokens(logits.argmax(-1).to(torch.int32))

    def _check(self, message: HiddenStates) -> None:
        """Refuse states that do not follow those that came before, or that the model cannot take.

        Raises:
            ProtocolError: for states of another width or position.
            PromptError: beyond the context.
        """
        rows, width = message.hidden.shape
        if width != self._bundle.geometry.width:
            raise ProtocolError(f"hidden states of width {width} where {self._bundle.geometry.width} is due")
        store, held = self._attention.store, 0
        if message.position and not self._rows_hidden:
            held = store.length(store.layers[0]) if store.layers else message.position
            if message.position != held or held < 0:
                raise ProtocolError(f"hidden states of position {message.position} where {held} is due")
        self._bundle.check_prompt(rows, held)

    def memory(self) -> dict[str, int]:
        return {"weights": self._bundle.weight_bytes, "kv": self._attention.store.nbytes}


class _AskClient:
    """Attention of permuted rows: asked of the client, who knows their order."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        by_row = [x[0].transpose(0, 1) for x in (q, k, v)]
        answer = self._channel.request(AttentionInputs(by_row[0], by_row[1], by_row[2], layer))
        if not isinstance(answer, AttentionContext):
            raise ProtocolError(f"the client answered attention inputs with {type(answer).__name__}")
        return answer.context.to(q).transpose(0, 1).unsqueeze(0)


class SplitClient(Client):
    """Runs the first blocks, keeps the secret orders and, when rows are permuted, does the provider's attention.

    Attributes:
        shuffle: draws the order of a message's rows; every request brings its own.
        order: of the rows of the last message.
    """

    def __init__(self, bundle: Bundle, layer: int, rows_hidden: bool) -> None:
        super().__init__()
        self._bundle = bundle
        self.shuffle = np.random.default_rng(0)
        self._rows_hidden = rows_hidden
        self._model = HookedModel(bundle, None, layer)
        self._attention = LocalAttention()
        self._far = KVStore()
        self._positions = torch.empty(0, dtype=torch.long)
        self.order = torch.empty(0, dtype=torch.long)
        self._specs = self._probe() if rows_hidden else {}
        self._rotation = rotation_of(bundle, bundle.geometry.layers) if rows_hidden else None
        if self._rotation:
            self._rotation.ensure_known(layer)

    def _probe(self) -> dict[int, AttentionSpec]:
        """Constants of every layer's attention (public): seen by running one token."""
        attention = LocalAttention()
        zero = torch.zeros(1, dtype=torch.long, device=self._bundle.device)
        HookedModel(self._bundle).forward(attention, zero, ids=zero.unsqueeze(0))
        return attention.specs

    def hidden(self, ids: Sequence[int], position: int) -> Tensor:
        """States ``[rows, width]`` at the cut for new tokens at ``position ..``; rows in the order that is sent."""
        if position == 0:
            self._attention, self._far = LocalAttention(), KVStore()
        device = self._bundle.device
        self._positions = torch.arange(position, position + len(ids), device=device)
        states = self._model.forward(self._attention, self._positions, ids=torch.tensor([list(ids)], device=device))[0]
        self.order = torch.arange(len(ids), device=device)
        if self._rows_hidden:
            self.order = torch.from_numpy(self.shuffle.permutation(len(ids))).to(device)
        return states[self.order]

    @property
    def last_row(self) -> int:
        """Where the newest position went in what was sent."""
        return int(self.order.argmax())

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, AttentionInputs) or self._rotation is None:
            return super().handle(message)
        back = torch.argsort(self.order)
        q, k, v = (x[back].transpose(0, 1).unsqueeze(0) for x in (message.q, message.k, message.v))
        q = self._rotation.queries(message.layer, q, self._positions)
        k = self._rotation.keys(message.layer, k, self._positions)
        attention = LocalAttention(self._far)
        context = attention.attend(message.layer, q, k, v, self._positions, self._specs[message.layer])
        return AttentionContext(context[0].transpose(0, 1)[self.order])

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held."""
        return self._attention.store.nbytes + self._far.nbytes


class SplitDeployment(Deployment):
    """A client with the first blocks and a provider with the rest.

    Args:
        bundle: the model.
        boundary: joins the parties.
        cut: where it is cut.
        permutation: what stands in a secret order.
        seed: of the secret orders.
    """

    def __init__(
        self, bundle: Bundle, boundary: Boundary, cut: SplitParameters, permutation: PermutationParameters, seed: int
    ) -> None:
        self._split_client = SplitClient(bundle, cut.layer, permutation.rows)
        super().__init__(bundle, boundary, self._split_client, SHOWS)
        self._seed = seed
        self._cut = cut
        self._features: Tensor | None = None
        served = bundle
        if permutation.features:
            features = generator(seed, "split", "features").permutation(bundle.geometry.width)
            self._features = torch.from_numpy(features).to(bundle.device)
            served = permuted(bundle, self._features, cut.layer)
        self._channel = boundary.open(self._split_client, partial(SplitProvider, served, cut.layer, permutation.rows))

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        self._split_client.shuffle = generator(self._seed, "split", "rows", self.draw)

    def sent(self, ids: Sequence[int], position: int) -> Tensor:
        """Hidden states ``[rows, width]`` as they cross."""
        states = self._split_client.hidden(ids, position)
        states = states if self._features is None else states[:, self._features]
        return states.to(DTYPES[self._cut.wire_dtype])

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        feed, position = list(ids), 0
        logits: list[Tensor] = []
        for step in range(max_new_tokens):
            answer = self._channel.request(HiddenStates(self.sent(feed, position), position))
            if not isinstance(answer, Tokens):
                raise ProtocolError(f"the provider answered hidden states with {type(answer).__name__}")
            row = self._split_client.last_row if len(answer.ids) > 1 else 0
            token = int(answer.ids[row])
            if forced is not None:
                token = forced[step]
                logits.append(self.tapped()[-1][row])
            self._split_client.take(token)
            if forced is None and token in self.bundle.end_ids:
                break
            position += len(feed)
            feed = [token]
        return logits

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], self._split_client.kv_bytes, held["kv"])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class SplitPrepared(Prepared):
    """A model to cut; ``public`` has its features in the public order.

    Attributes:
        cut: where.
        permutation: what stands in a secret order.
    """

    cut: SplitParameters
    permutation: PermutationParameters

    def deploy(self, boundary: Boundary) -> SplitDeployment:
        """Start the two parties."""
        return SplitDeployment(self.bundle, boundary, self.cut, self.permutation, self.seed)


class Split(Defense):
    """Split inference after ``layer`` blocks.

    Args:
        layer: how many blocks the client runs; 0 sends embeddings.
        permute: ``none``, ``sequence``, ``hidden`` or ``both``.
        wire_dtype: type in which hidden states cross.

    Raises:
        ConfigError: for a value out of range.
    """

    def __init__(self, layer: int = 1, permute: Permute = "none", wire_dtype: str = "fp32") -> None:
        if permute not in PERMUTATIONS:
            raise ConfigError(f"defense.permute={permute} is unknown: use one of {', '.join(PERMUTATIONS)}")
        self.cut = cut_after(layer, wire_dtype)
        self.permutation = PermutationParameters(permute)

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> SplitPrepared:
        check_cut(self.cut, bundle)
        return SplitPrepared(
            bundle=bundle,
            public=bundle,
            base=bundle,
            parameters=(self.cut, self.permutation),
            shows=self.shows,
            seed=seed,
            cut=self.cut,
            permutation=self.permutation,
        )


def cut_after(layer: int, wire_dtype: str) -> SplitParameters:
    """The cut that options name.

    Raises:
        ConfigError: for an unknown type or a negative layer.
    """
    if wire_dtype not in DTYPES:
        raise ConfigError(f"wire_dtype={wire_dtype} is unknown: use one of {', '.join(DTYPES)}")
    if layer < 0:
        raise ConfigError(f"defense.layer={layer} is out of range: use 0 up to the number of blocks")
    return SplitParameters(layer, wire_dtype)


def check_cut(cut: SplitParameters, bundle: Bundle) -> None:
    """Refuse a cut behind a model's last block.

    Raises:
        ConfigError: naming how many blocks there are.
    """
    if cut.layer > bundle.geometry.layers:
        raise ConfigError(
            f"defense.layer={cut.layer} is out of range: {bundle.name} has {bundle.geometry.layers} blocks"
        )
