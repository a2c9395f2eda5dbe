"""The device in ``boundary`` visibility: it runs the exposed model in the clear and asks for the secret part's share.

It sees the plain input and the plain output of every secret product, which gives the secret part away to whoever solves
for it (``k_pair_regression``); a labelled option, to measure just that.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from smd_research.boundary import Channel
from smd_research.boundary.messages import (
    Done,
    ExposedLayer,
    LowRankInput,
    LowRankOutput,
    Message,
    PromptIds,
    Tokens,
    token_tensor,
)
from smd_research.core.errors import ProtocolError
from smd_research.defenses.base import Provider
from smd_research.defenses.slip.device import ExposedStore
from smd_research.defenses.slip.fused import stands, with_modules
from smd_research.defenses.slip.products import Product, bias_of
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel


class Missing(nn.Module):
    """Stands in a shell in place of a linear layer, whose bias (``[m]``) alone is left."""

    def __init__(self, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)


def shell_of(bundle: Bundle, products: Sequence[Product]) -> Bundle:
    """The model without its linear weights and its head: all that a device has before the exposed part arrives."""
    names = [name for product in products for name in product.layers]
    modules: dict[str, nn.Module] = {}
    for name in names:
        modules[name] = Missing(getattr(bundle.model.get_submodule(name), "bias", None))
    return with_modules(bundle, modules)


class ClearDevice(Provider):
    """Generates with the exposed weights and the trusted side's answers.

    Args:
        shell: the model without its linear weights: norms, embeddings, biases.
        products: its fused products.
        asked: numbers of the products that have a secret part.
        channel: its end of the boundary.
    """

    def __init__(
        self,
        shell: Bundle,
        products: Sequence[Product],
        asked: frozenset[int],
        channel: Channel,
    ) -> None:
        super().__init__(channel, shell.end_ids)
        self._bundle = shell
        self._products = tuple(products)
        self._asked = asked
        self._store = ExposedStore(products)
        self._weights: dict[int, Tensor] = {}
        self._biases: dict[int, Tensor | None] = {}
        self._model: HookedModel | None = None
        self._attention = LocalAttention()

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if isinstance(message, ExposedLayer):
            self._store.take(message)
            return None
        if not isinstance(message, PromptIds):
            raise ProtocolError(f"the device does not serve {type(message).__name__}")
        self._bundle.check_ids(message.ids)
        self._bundle.check_prompt(len(message.ids), message.max_new_tokens)
        model = self._model = self._model or self._build()
        self._attention = LocalAttention()
        feed, position = message.ids.long(), 0
        for _ in range(message.max_new_tokens):
            positions = torch.arange(position, position + len(feed), device=self._bundle.device)
            ids = feed.unsqueeze(0).to(self._bundle.device)
            token = self.choose(model.forward(self._attention, positions, ids=ids, last_only=True)[0, -1])
            self.channel.notify(Tokens(token_tensor([token])))
            if self.ended(token):
                break
            position += len(feed)
            feed = torch.tensor([token])
        return Done()

    def _build(self) -> HookedModel:
        modules: dict[str, nn.Module] = {}
        for product in self._products:
            weights, scale = self._store.pop(product.number)
            self._weights[product.number] = (weights.float() * scale[:, None]).to(self._bundle.device)
            self._biases[product.number] = bias_of(self._bundle.model, product)
            modules |= stands(product, partial(self._product, product))
        return HookedModel(with_modules(self._bundle, modules))

    def _product(self, product: Product, a: Tensor) -> Tensor:
        """The whole product of plain inputs ``[rows, n]``."""
        y = functional.linear(a.float(), self._weights[product.number], self._biases[product.number])
        if product.number not in self._asked:
            return y
        answer = self.channel.request(LowRankInput(a.float(), product.number))
        if not isinstance(answer, LowRankOutput) or answer.product != product.number or answer.y.shape != y.shape:
            raise ProtocolError(f"the trusted side answered product {product.name} with something else")
        return y + answer.y.to(y)

    def memory(self) -> dict[str, int]:
        weights = sum(one.nbytes for one in self._weights.values())
        return {"weights": weights + self._store.nbytes + self._bundle.weight_bytes, "kv": self._attention.store.nbytes}
