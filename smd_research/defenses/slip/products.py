"""Which linear layers share a round of the protocol: those that read the very same input tensor."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, weight_of
from smd_research.models.structure import sharing_copy


@dataclass(frozen=True)
class Product:
    """A fused product ``[rows, n] -> [rows, m]``: one round trip for all its layers.

    Attributes:
        number: how messages call it; the products are numbered in the order of a forward pass, the head last.
        layers: module names, in the order in which the model asks for them; their outputs follow each other.
        heights: outputs of each layer, ``m`` in all.
        width: inputs ``n``.
    """

    number: int
    layers: tuple[str, ...]
    heights: tuple[int, ...]
    width: int

    @property
    def height(self) -> int:
        """Outputs ``m`` of all layers together."""
        return sum(self.heights)

    @property
    def name(self) -> str:
        """What a person reads, e.g. ``3 (model.layers.0.mlp.gate_proj, model.layers.0.mlp.up_proj)``."""
        return f"{self.number} ({', '.join(self.layers)})"


def head_name(bundle: Bundle) -> str:
    """The module name of the language-model head.

    Raises:
        UnsupportedModelError: for a model whose head is no linear layer.
    """
    head = bundle.model.get_output_embeddings()
    names = [str(name) for name, module in bundle.model.named_modules() if module is head]
    if not names or not isinstance(head, nn.Linear):
        raise UnsupportedModelError(f"the head of family '{bundle.family}' is no linear layer: it cannot run masked")
    return names[0]


def discover(bundle: Bundle) -> tuple[Product, ...]:
    """The fused products of a model, found by running one token and watching who reads which tensor.

    Raises:
        UnsupportedModelError: for a model whose layers cannot be split, or are not called once each.
    """
    layers: dict[str, nn.Module] = {**linear_layers(bundle)}
    head = head_name(bundle)
    layers[head] = bundle.model.get_submodule(head)
    calls = _calls(bundle, tuple(layers))
    if sorted(name for name, _ in calls) != sorted(layers):
        odd = {name for name in layers if sum(name == called for called, _ in calls) != 1}
        raise UnsupportedModelError(
            f"family '{bundle.family}' does not call each of its linear layers once: {', '.join(sorted(odd))}"
        )
    groups: dict[int, list[str]] = {}
    for name, x in calls:  # the list keeps every tensor alive, so that no identity is used twice
        groups.setdefault(id(x), []).append(name)
    found = []
    for number, names in enumerate(groups.values()):
        shapes = [weight_of(layers[name]).shape for name in names]
        found.append(Product(number, tuple(names), tuple(shape[0] for shape in shapes), shapes[0][1]))
    return tuple(found)


@torch.inference_mode()
def _calls(bundle: Bundle, names: tuple[str, ...]) -> list[tuple[str, Tensor]]:
    """Who was called with which tensor, in order; in a structural copy, so that the model keeps no hook."""
    calls: list[tuple[str, Tensor]] = []

    def note(name: str, _module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        calls.append((name, arguments[0]))

    model = sharing_copy(bundle.model)
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(partial(note, name))
    model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=bundle.device), use_cache=False)
    return calls


def bias_of(model: nn.Module, product: Product) -> Tensor | None:
    """The biases of a product's layers, ``[m]`` (fp32): zero where a layer has none; None where none has one."""
    held = [getattr(model.get_submodule(name), "bias", None) for name in product.layers]
    there = [bias for bias in held if bias is not None]
    if not there:
        return None
    filled = [
        there[0].new_zeros(height) if bias is None else bias for bias, height in zip(held, product.heights, strict=True)
    ]
    return torch.cat(filled).detach().float()
