"""What a device holds and sees of a model whose weights are split, made without a deployment: what attacks read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from attacks.base import Public
from smd_research.boundary import AdversaryView
from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import LowRankInput, LowRankOutput, MaskedInput, MaskedOutput, Message
from smd_research.core.guess import WeightGuess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.mechanisms.decomposition.splits import Kind, split
from smd_research.mechanisms.integers.field import FIELDS
from smd_research.mechanisms.integers.fixed_point import FixedPoint, Quantised, quantise_rows
from smd_research.mechanisms.integers.masks import MaskStream
from smd_research.mechanisms.integers.parameters import ProtocolParameters
from smd_research.models.bundle import Bundle
from smd_research.models.linears import input_groups, linear_layers, weight_of, with_weights

RANK = 4
FIELD = FIELDS["wide"]
DOWN, UP = Direction.TO_UNTRUSTED, Direction.TO_TRUSTED
SHOWS = frozenset({Observable.EXPOSED_WEIGHTS, Observable.MASKED_ACTIVATIONS, Observable.OUTPUT_TOKENS})


@dataclass(frozen=True, repr=False)
class Split:
    """A model, and what the device holds of it.

    Attributes:
        bundle: the secret.
        public: what the device knows.
        secret: what it was not given of each matrix ``[m, n]``, by layer.
    """

    bundle: Bundle
    public: Public
    secret: dict[str, Tensor]

    @property
    def products(self) -> tuple[tuple[str, ...], ...]:
        return input_groups(self.secret)

    def error(self, guess: WeightGuess, shape: str = "") -> float:
        """Relative error of the secret parts of all matrices, or of ``tall``, ``square`` or ``wide`` ones."""
        layers = linear_layers(self.public.bundle)
        wrong, all_of_it = 0.0, 0.0
        for name, secret in self.secret.items():
            if shape and shape != form(secret):
                continue
            restored = guess.weights[f"{name}.weight"]
            restored = restored.T if isinstance(layers[name], Conv1D) else restored
            wrong += float((restored - weight_of(layers[name]) - secret).square().sum())
            all_of_it += float(secret.square().sum())
        return float((wrong / all_of_it) ** 0.5)


def form(matrix: Tensor) -> str:
    m, n = matrix.shape
    return "square" if m == n else "tall" if m > n else "wide"


def split_model(bundle: Bundle, kind: Kind = "svd", rank: int = RANK, bits: int | None = None) -> Split:
    exposed, secret = {}, {}
    for name, layer in linear_layers(bundle).items():
        parts = split(weight_of(layer), rank, kind, generator(0, "split", name))
        exposed[name] = quantise_rows(parts.exposed, bits).dequantised() if bits else parts.exposed
        secret[name] = parts.left @ parts.right
    products = input_groups(secret)
    protocol = ProtocolParameters("wide", "strict", "uniform", verify=2, masks=None, bank="memory")
    parameters = SecretParts(products, dict.fromkeys(secret, rank)), protocol
    return Split(bundle, Public(with_weights(bundle, exposed), "slip", parameters), secret)


@torch.inference_mode()
def inputs(model: Split, ids: Sequence[int]) -> list[Tensor]:
    """What enters each product ``[rows, n]`` when the whole model reads a text."""
    layers, found = linear_layers(model.bundle), {}
    hooks = [
        layers[names[0]].register_forward_pre_hook(
            lambda _module, arguments, number=number: found.update({number: arguments[0][0]})
        )
        for number, names in enumerate(model.products)
    ]
    model.bundle.model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [found[number] for number in range(len(model.products))]


def boundary_view(model: Split, ids: Sequence[int]) -> AdversaryView:
    """Every product asked of the trusted side in the clear."""
    messages: list[tuple[Direction, Message]] = []
    for number, (names, x) in enumerate(zip(model.products, inputs(model, ids), strict=True)):
        y = x @ torch.cat([model.secret[name] for name in names]).T
        messages += [(UP, LowRankInput(x, number)), (DOWN, LowRankOutput(y, number))]
    return AdversaryView(tuple(messages), SHOWS, len(ids), ())


def stored(model: Split, number: int) -> Quantised:
    """What a product multiplies by, in 16 bits."""
    layers = linear_layers(model.public.bundle)
    return quantise_rows(torch.cat([weight_of(layers[name]) for name in model.products[number]]), 16)


def encoded(model: Split, number: int, a: Tensor) -> Tensor:
    """Inputs of a product ``[rows, n]`` as integers."""
    weights = stored(model, number)
    return FixedPoint.of(weights.integers, weights.scale, FIELD).encode(a).x


def strict_view(model: Split, ids: Sequence[int], masking: str = "uniform", first_use: int = 0) -> AdversaryView:
    """Every product done by the device under masks: ``uniform``, or ``reused`` by all rows of a product."""
    stream = MaskStream(bytes(32))
    messages: list[tuple[Direction, Message]] = []
    for number, a in enumerate(inputs(model, ids)):
        x = encoded(model, number, a)
        uses = [0] * len(x) if masking == "reused" else range(first_use, first_use + len(x))
        masked = FIELD.add(x, stream.rows(uses, number, x.shape[1], FIELD.prime))
        y = FIELD.product(masked, FIELD.admit(stored(model, number).integers))
        messages += [(DOWN, MaskedInput(masked, number, first_use)), (UP, MaskedOutput(y, number, first_use))]
    return AdversaryView(tuple(messages), SHOWS, len(ids), ())
