"""The device (David): it stores the exposed weights, looks up embeddings and multiplies what it cannot read."""

from collections.abc import Sequence

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
from smd_research.defenses.slip.products import Product
from smd_research.mechanisms.integers.field import Field


class ExposedStore:
    """The exposed weights as they arrive, rows of a product under each other; never more than the model has.

    Args:
        products: of the model, by whose shapes everything is checked.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        self._shapes = {product.number: (product.height, product.width) for product in products}
        self._arrived: dict[int, list[ExposedLayer]] = {}

    def take(self, message: ExposedLayer) -> None:
        """Keep some more rows of a product.

        Raises:
            ProtocolError: for a product that the model has not, or rows that are not its.
        """
        number, (rows, width) = message.product, message.weights.shape
        if number not in self._shapes:
            raise ProtocolError(f"the model has no product {number}")
        left = self._shapes[number][0] - self._rows(number)
        if width != self._shapes[number][1] or not 0 < rows <= left or len(message.scale) != rows:
            raise ProtocolError(
                f"product {number} still lacks {left} rows of {self._shapes[number][1]}, "
                f"not {rows} of {width} with {len(message.scale)} scales"
            )
        self._arrived.setdefault(number, []).append(message)

    def pop(self, product: int) -> tuple[Tensor, Tensor]:
        """Weights ``[m, n]`` as sent and scales ``[m]`` of a product; they are handed over, not kept.

        Raises:
            ProtocolError: for a product that the model has not, or of which rows have not arrived.
        """
        if self._rows(product) != self._shapes.get(product, (-1, 0))[0]:
            raise ProtocolError(f"the device holds no product {product}: its exposed weights never arrived")
        layers = self._arrived.pop(product)
        return torch.cat([layer.weights for layer in layers]), torch.cat([layer.scale for layer in layers])

    def _rows(self, product: int) -> int:
        return sum(len(layer.weights) for layer in self._arrived.get(product, ()))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(layer.nbytes for layers in self._arrived.values() for layer in layers)


class MaskedDevice(Untrusted):
    """Runs products of masked inputs in a field, exactly; sees token ids and residues.

    Args:
        embedding: the model's token embedding, which is exposed.
        products: the fused products of the model.
        field: where they are computed.
        channel: its end of the boundary.
    """

    def __init__(self, embedding: nn.Module, products: Sequence[Product], field: Field, channel: Channel) -> None:
        super().__init__()
        self._embedding = embedding
        self._field = field
        self._store = ExposedStore(products)
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
        return (x.double() @ weights.double().T).float() if x.is_floating_point() else self._field.product(x, weights)

    def _checked(self, ids: Tensor) -> Tensor:
        """Token ids that the embedding has; an accelerator would not recover from others."""
        known = len(next(self._embedding.parameters()))
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < known:
            raise ProtocolError(f"a token that the model does not have: it has {known}")
        return ids

    def memory(self) -> dict[str, int]:
        """The exposed weights and the embedding."""
        weights = sum(one.nbytes for one in self._weights.values())
        return {
            "weights": weights + self._store.nbytes + sum(p.nbytes for p in self._embedding.parameters()),
            "kv": 0,
        }
