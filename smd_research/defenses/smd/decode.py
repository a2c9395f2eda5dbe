"""The decode service of one user: the untrusted party of secure multi-party decoding."""

from collections.abc import Sequence

from torch import Tensor

from smd_research.boundary import Channel
from smd_research.boundary.messages import Done, Message, OutputRequest, StartDecode
from smd_research.core.errors import ProtocolError
from smd_research.defenses.base import Provider
from smd_research.defenses.smd.batch import DecodeBatch
from smd_research.defenses.smd.requests import ServiceOptions
from smd_research.models.bundle import Bundle


class DecodeService(Provider):
    """Serves one request at a time.

    Args:
        bundle: the model.
        options: public configuration.
        channel: its end of the boundary.
    """

    def __init__(self, bundle: Bundle, options: ServiceOptions, channel: Channel) -> None:
        super().__init__(channel, bundle.end_ids)
        self._bundle = bundle
        self._batch = DecodeBatch(bundle, options)

    def arm(self, forced: Sequence[int] | None) -> None:
        super().arm(forced)
        self._batch.force = None if forced is None else self._forced

    def _forced(self, logits: Tensor) -> list[int]:
        """Keep the logits ``[streams, vocab]`` of a step, go on with the forced token in every stream."""
        return [self.choose(logits)] * len(logits)

    def handle(self, message: Message) -> Message | None:
        if isinstance(message, OutputRequest):
            return self._batch.outputs(message, self.channel)
        if not isinstance(message, StartDecode):
            raise ProtocolError(f"the decode service does not serve {type(message).__name__}")
        request = self._batch.admit(message, self.channel)
        while request.live:
            self._batch.step()
        self._batch.settle()
        if request.failure:
            raise request.failure
        return Done()

    def memory(self) -> dict[str, int]:
        return {"weights": self._bundle.weight_bytes, "kv": self._batch.kv_bytes}
