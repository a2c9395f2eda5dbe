"""The device (David): it stores the exposed weights, looks up embeddings and multiplies what it cannot read."""

import torch
from torch import Tensor, nn

from smd_research.boundary import Channel, Untrusted
from smd_research.boundary.messages import (
    ExposedLayer,
    HiddenStates,
    MaskedInput,
    MaskedOutput,
    Message,
    PromptIds,
    Tokens,
)
from smd_research.core.errors import ProtocolError
from smd_research.mechanisms.integers.field import Field


class ExposedStore:
    """The exposed weights as they arrive, rows of a product under each other."""

    def __init__(self) -> None:
        self._arrived: dict[int, list[ExposedLayer]] = {}

    def take(self, message: ExposedLayer) -> None:
        """Keep some more rows of a product."""
        self._arrived.setdefault(message.product, []).append(message)

    def pop(self, product: int) -> tuple[Tensor, Tensor]:
        """Weights ``[m, n]`` as sent and scales ``[m]`` of a product; they are handed over, not kept.

        Raises:
            ProtocolError: for a product of which nothing arrived.
        """
        layers = self._arrived.pop(product, None)
        if layers is None:
            raise ProtocolError(f"the device holds no product {product}: its exposed weights never arrived")
        return torch.cat([layer.weights for layer in layers]), torch.cat([layer.scale for layer in layers])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(layer.nbytes for layers in self._arrived.values() for layer in layers)


class MaskedDevice(Untrusted):
    """Runs products of masked inputs in a field, exactly; sees token ids and residues.

    Args:
        embedding: the model's token embedding, which is exposed.
        field: where the products are computed.
        channel: its end of the boundary.
    """

    def __init__(self, embedding: nn.Module, field: Field, channel: Channel) -> None:
        super().__init__()
        self._embedding = embedding
        self._field = field
        self._store = ExposedStore()
        self._weights: dict[int, Tensor] = {}
        self._at: torch.device = next(embedding.parameters()).device

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if isinstance(message, MaskedInput):
            return MaskedOutput(self.product(message.x, message.product), message.product, message.use)
        if isinstance(message, PromptIds | Tokens):
            return HiddenStates(self._embedding(self._checked(message.ids).to(self._at)), 0)
        if isinstance(message, ExposedLayer):
            self._weights.pop(message.product, None)
            self._store.take(message)
            return None
        raise ProtocolError(f"the device does not serve {type(message).__name__}")

    def product(self, x: Tensor, number: int) -> Tensor:
        """A masked input ``[rows, n]`` times the exposed weights: residues, or floats for a float mask.

        Raises:
            ProtocolError: for a product it does not hold, or an input of another shape.
        """
        weights = self._weights.get(number)
        if weights is None:
            integers, _ = self._store.pop(number)
            weights = self._weights[number] = self._field.admit(integers.to(self._at))
        if x.dim() != 2 or x.shape[1] != weights.shape[1]:
            raise ProtocolError(f"product {number} takes rows of {weights.shape[1]}, not {list(x.shape)}")
        x = x.to(self._at)
        return (x.double() @ weights.T).float() if x.is_floating_point() else self._field.product(x, weights)

    def _checked(self, ids: Tensor) -> Tensor:
        """Token ids that the embedding has; an accelerator would not recover from others."""
        known = len(next(self._embedding.parameters()))
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < known:
            raise ProtocolError(f"a token that the model does not have: it has {known}")
        return ids

    def memory(self) -> dict[str, int]:
        """The exposed weights as they are multiplied (float64) or as they arrived, and the embedding."""
        weights = sum(one.nbytes for one in self._weights.values())
        return {
            "weights": weights + self._store.nbytes + sum(p.nbytes for p in self._embedding.parameters()),
            "kv": 0,
        }
