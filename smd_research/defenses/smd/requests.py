"""What the decode service is configured with, and the requests in its batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import torch

from smd_research.boundary import Channel
from smd_research.boundary.messages import Message, StartDecode
from smd_research.core.errors import LabError, ProtocolError
from smd_research.mechanisms.attention.exchange import MergePlace
from smd_research.models.attention import KVStore
from smd_research.models.sampling import Sampling

T = TypeVar("T")


class SendOrder(StrEnum):
    """When a layer's queries leave for the vaults."""

    AFTER_Q = "after_q"
    AFTER_KV = "after_kv"
    AFTER_ATTENTION = "after_attention"


@dataclass(frozen=True)
class ServiceOptions:
    """Public configuration of the service.

    Attributes:
        wire_dtype: type of queries on the wire.
        send_order: when queries leave.
        inner_layers: decode layers that the vaults run.
        merge: who merges both sides' attention; at the vaults, queries leave with the service's own.
    """

    wire_dtype: torch.dtype = torch.float32
    send_order: SendOrder = SendOrder.AFTER_Q
    inner_layers: int = 0
    merge: MergePlace = MergePlace.PROVIDER


@dataclass(frozen=True)
class Question:
    """What a vault was asked and has not answered yet.

    Attributes:
        about: the layer, or ``INNER``.
        reply: waits for the answer.
        since: when it was asked, on the clock of who waits.
    """

    about: int
    reply: Callable[[], Message]
    since: float


INNER = -1
"""What a question is about that asks for the states after the vault's own layers."""


@dataclass(eq=False)
class Request:
    """A request in the batch, or one that waits beside it for its vault's answer.

    Attributes:
        answers: what the vault has answered about the token that is being decoded, by layer.
        asked: what it has still to answer.
        late: whether the step went on without it.
        kv: keys and values of the generated tokens, while the request is not in the batch.
        trusted_at: when others wait for it again.
    """

    channel: Channel
    start: StartDecode
    sampling: Sampling
    tokens: list[int]
    vault: bool
    ended: list[bool] = field(default_factory=list)
    step: int = 0
    position: int = 0
    failure: LabError | None = None
    answers: dict[int, Message] = field(default_factory=dict)
    asked: Question | None = None
    late: bool = False
    kv: KVStore | None = None
    trusted_at: float = 0.0

    @property
    def streams(self) -> int:
        """Streams of the request."""
        return len(self.tokens)

    @property
    def live(self) -> bool:
        """Whether there is another token to decode."""
        return self.failure is None and not all(self.ended) and self.step <= self.start.max_new_tokens

    @property
    def present(self) -> bool:
        """Whether it takes part in the step that is being done."""
        return self.failure is None and not self.late


def guarded(request: Request, act: Callable[[], T]) -> T | None:
    """Do something for one request; what goes wrong, whatever it is, fails that request and nothing else."""
    if request.failure is not None:
        return None
    try:
        return act()
    except LabError as error:
        request.failure = error
    except Exception as error:
        request.failure = unforeseen(error)
    return None


def unforeseen(error: Exception) -> ProtocolError:
    """The one line for a user of an error that nobody raised on purpose; the error itself is its cause."""
    failure = ProtocolError(f"it met a {type(error).__name__}")
    failure.__cause__ = error
    return failure
