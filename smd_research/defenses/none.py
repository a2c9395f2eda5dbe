"""No protection: the provider gets the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from smd_research.boundary import Boundary, Channel
from smd_research.boundary.messages import Done, Message, PromptIds, Tokens, token_tensor
from smd_research.core.errors import ProtocolError
from smd_research.core.observable import Observable
from smd_research.defenses.base import NO_TEXT, Client, Deployment, Memory, Provider, PublicText
from smd_research.defenses.tunable import Tunable, TunablePrepared
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import StockDecoder

SHOWS = frozenset({Observable.TOKEN_IDS, Observable.OUTPUT_TOKENS, Observable.LENGTH})
TUNING_SHOWS = frozenset({Observable.TOKEN_IDS, Observable.LABELS, Observable.LENGTH})


class PlainProvider(Provider):
    """Takes prompt ids and streams greedy tokens from a stock model."""

    def __init__(self, bundle: Bundle, channel: Channel) -> None:
        super().__init__(channel, bundle.end_ids)
        self._bundle = bundle
        self._kv_bytes = 0

    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, PromptIds):
            raise ProtocolError(f"the provider does not serve {type(message).__name__}")
        self._bundle.check_ids(message.ids)
        self._bundle.check_prompt(len(message.ids), message.max_new_tokens)
        decoder = StockDecoder(self._bundle)
        feed = message.ids.long().unsqueeze(0).to(self._bundle.device)
        for _ in range(message.max_new_tokens):
            token = self.choose(decoder.step(feed))
            self.channel.notify(Tokens(token_tensor([token])))
            if self.ended(token):
                break
            feed = torch.tensor([[token]], device=self._bundle.device)
        self._kv_bytes = decoder.kv_bytes
        return Done()

    def memory(self) -> dict[str, int]:
        return {"weights": self._bundle.weight_bytes, "kv": self._kv_bytes}


class PlainDeployment(Deployment):
    """The client hands its prompt over."""

    def __init__(self, bundle: Bundle, boundary: Boundary, shows: frozenset[Observable] = SHOWS) -> None:
        super().__init__(bundle, boundary, Client(), shows)
        self._channel = boundary.open(self.client, partial(PlainProvider, bundle))

    def said(self, ids: Sequence[int]) -> Sequence[int]:
        """What is sent in place of what the user wrote; a chat template's tokens around it are sent as they are."""
        return ids

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        sent = self.wrapper.around(self.said(ids[self.wrapper.place(len(ids))]))
        self._channel.request(PromptIds(token_tensor(sent), max_new_tokens))
        return [] if forced is None else self.tapped()

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], 0, held["kv"])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class PlainPrepared(TunablePrepared):
    """Nothing is changed, nothing is promised."""

    def deploy(self, boundary: Boundary) -> PlainDeployment:
        """Start the two parties."""
        return PlainDeployment(self.bundle, boundary, self.shows)


class NoDefense(Tunable):
    """The provider gets the prompt in plain token ids: the baseline of every table."""

    @property
    def shows(self) -> frozenset[Observable]:
        return SHOWS

    @property
    def tuning_shows(self) -> frozenset[Observable]:
        return TUNING_SHOWS

    def prepare(
        self, bundle: Bundle, public_text: PublicText = NO_TEXT, seed: int = 0, folder: Path | None = None
    ) -> PlainPrepared:
        return PlainPrepared(
            bundle=bundle, public=bundle, base=bundle, shows=self.shows, tuning_shows=self.tuning_shows, seed=seed
        )
