"""Private inference under a key: the client encodes its prompt and decodes the answer, the provider serves as ever."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.boundary.messages import PromptIds, token_tensor
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.core.wrapper import BARE, Wrapper
from smd_research.defenses.base import Client, Deployment, Memory
from smd_research.defenses.none import PlainProvider
from smd_research.defenses.shaking.code import KeyedCode
from smd_research.defenses.tunable import TunablePrepared
from smd_research.models.bundle import Bundle

HEADLESS = "defense.head=drop leaves the provider nothing to generate with: use it with a task"
SHOWS = frozenset({Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS, Observable.LENGTH})
TUNING_SHOWS = frozenset({Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS, Observable.LABELS, Observable.LENGTH})


class KeyedClient(Client):
    """Collects cipher tokens, and their plain ones."""

    def __init__(self, code: KeyedCode) -> None:
        super().__init__()
        self._code = code
        self.cipher: list[int] = []

    def take(self, token: int) -> None:
        """Note one generated token and its time."""
        self.cipher.append(token)
        super().take(*self._code.decode([token]))

    def restart(self) -> None:
        """Forget the last request."""
        super().restart()
        self.cipher = []


class KeyedDeployment(Deployment):
    """A client with a key, a provider with the model that the key is in.

    Args:
        bundle: the public model.
        boundary: joins the parties.
        served: the model that the provider holds.
        code: the client's.
    """

    def __init__(self, bundle: Bundle, boundary: Boundary, served: Bundle, code: KeyedCode) -> None:
        self._keyed = KeyedClient(code)
        super().__init__(bundle, boundary, self._keyed, SHOWS)
        self.code = code
        self._channel = boundary.open(self.client, partial(PlainProvider, served))

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(self._keyed.cipher),)

    def score(
        self, prompt_ids: Sequence[int], continuation: Sequence[int], draw: int | None = None, wrapper: Wrapper = BARE
    ) -> Tensor:
        """As every deployment: logits ``[len(continuation), vocab]`` of plain ids.

        Fresh noise falls on the prompt alone: the continuation stands for tokens that the provider makes.
        """
        return self.code.decode_logits(super().score(prompt_ids, continuation, draw, wrapper))

    def _dictated(self, continuation: Sequence[int]) -> Sequence[int]:
        return tuple(self.code.encode(continuation, self.draw))

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        (said,) = self.code.replaced([ids[self.wrapper.place(len(ids))]], self.draw)
        sent = tuple(self.code.encode(self.wrapper.around(said), self.draw))
        self._channel.request(PromptIds(token_tensor(sent), max_new_tokens))
        return [] if forced is None else self.tapped()

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        return Memory(held["weights"], 0, held["kv"])


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class KeyedPrepared(TunablePrepared):
    """A model with a key in it, and the client's code."""

    code: KeyedCode

    def deploy(self, boundary: Boundary) -> KeyedDeployment:
        """Start the two parties.

        Raises:
            ConfigError: where the provider has no head.
        """
        if self.public.model.get_output_embeddings() is None:
            raise ConfigError(HEADLESS)
        return KeyedDeployment(self.bundle, boundary, self.public, self.code)
