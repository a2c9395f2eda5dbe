"""What the decode service is configured with, and the requests in its batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import torch

from smd_research.boundary import Channel
from smd_research.boundary.messages import StartDecode
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
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
    """

    wire_dtype: torch.dtype = torch.float32
    send_order: SendOrder = SendOrder.AFTER_Q
    inner_layers: int = 0


@dataclass(eq=False)
class Request:
    """A request in the batch."""

    channel: Channel
    start: StartDecode
    sampling: Sampling
    tokens: list[int]
    vault: bool
    ended: list[bool] = field(default_factory=list)
    step: int = 0
    position: int = 0
    failure: LabError | None = None

    @property
    def streams(self) -> int:
        """Streams of the request."""
        return len(self.tokens)

    @property
    def live(self) -> bool:
        """Whether there is another token to decode."""
        return self.failure is None and not all(self.ended) and self.step <= self.start.max_new_tokens


def guarded(request: Request, act: Callable[[], T]) -> T | None:
    """Do something for one request; what goes wrong fails that request and nothing else."""
    if request.failure is not None:
        return None
    try:
        return act()
    except (PeerLostError, ProtocolError) as error:
        request.failure = error
        return None
