"""A device that tampers with its replies and reads the effect at the output (weight decomposition, verification off).

A wrong reply cannot show the activation it belongs to, which stays masked; but it moves what is computed from there on,
and the device sees which token comes out. So it may choose perturbations at any depth (own analysis of arXiv 2407.10886
and 2510.24999: why integrity is part of confidentiality). Two uses:

* at the **head** it lifts two tokens of its choice far above all others. Which of them comes out is the answer to "is
  logit ``a`` larger than logit ``b``?": one exact comparison of hidden values with every token, where an honest session
  tells the largest logit only.
* at an **inner** product it moves one coordinate; the runner tells how often the output changed.

What an integer of a reply stands for is known to the trusted side alone, as it hangs on the length of the input row.
But the rows of the weights relate to each other by scales that the device holds, so that two logits can be lifted by
the same amount; and no product of a row exceeds half the prime, so that an amount can be a share of that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from attacks.base import Public, WeightAttack
from attacks.impersonation import Impersonation
from smd_research.boundary import AdversaryView, Channel
from smd_research.boundary.messages import ExposedLayer, MaskedOutput, Message
from smd_research.boundary.process import UntrustedFactory
from smd_research.boundary.session import Impostor
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import Spent, WeightGuess
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.mechanisms.decomposition.parameters import SecretParts
from smd_research.mechanisms.integers.field import FIELDS, Field
from smd_research.mechanisms.integers.parameters import ProtocolParameters
from smd_research.models.linears import weight_of


class TamperingOracle(WeightAttack):
    """Active: reads comparisons of hidden logits, or perturbs an inner coordinate.

    ``facts``: replies tampered with and comparisons read, means over requests. No weight is restored.

    Args:
        product: number of the product to tamper with; None takes the head, for comparisons.
        coordinate: which output of an inner product is moved.
        magnitude: by how much, as a share of the largest product that a row may have: of half the prime.

    Raises:
        ConfigError: for an option out of range.
    """

    needs = frozenset({Observable.EXPOSED_WEIGHTS, Observable.MASKED_ACTIVATIONS, Observable.OUTPUT_TOKENS})

    def __init__(self, product: int | None = None, coordinate: int = 0, magnitude: float = 0.25) -> None:
        if (product is not None and product < 0) or coordinate < 0:
            raise ConfigError("attack.product and attack.coordinate count from 0")
        if magnitude == 0 or not -1 <= magnitude <= 1:
            raise ConfigError(f"attack.magnitude={magnitude:g} is out of range: -1 to 1, and not 0")
        self._product = product
        self._coordinate = coordinate
        self._magnitude = magnitude

    def fit(self, public: Public) -> None:
        """Take in public knowledge.

        Raises:
            NotApplicableError: when replies are no residues, or the product or coordinate is not there.
        """
        self._plan = self._planned(public)
        super().fit(public)

    def impostor(self, public: Public) -> Impostor:
        return partial(_instead, self._planned(public))

    def _planned(self, public: Public) -> "TamperingPlan":
        protocol = public.published(ProtocolParameters)
        if protocol is None or protocol.visibility != "strict" or protocol.masking == "float":
            raise NotApplicableError("tampers with products of masked residues: this defense asks for none")
        products = public.parameters_of(SecretParts).products
        field, head = FIELDS[protocol.field], len(products) - 1
        number = head if self._product is None else self._product
        if number > head:
            raise NotApplicableError(f"attack.product={number}: the products are numbered 0 to {head}")
        if self._product is None:
            return TamperingPlan(field, number, _pairs(public))
        height = sum(weight_of(public.bundle.model.get_submodule(name)).shape[0] for name in products[number])
        if self._coordinate >= height:
            raise NotApplicableError(f"attack.coordinate={self._coordinate}: product {number} has {height} outputs")
        return TamperingPlan(field, number, (), (self._coordinate, self._magnitude))

    def restore(self, views: Sequence[AdversaryView], rng: np.random.Generator) -> WeightGuess:
        """Read what the outputs answer; the weights stay as they are."""
        tampered = [sum(reply.product == self._plan.product for reply in view.of(MaskedOutput)) for view in views]
        read = [len(comparisons(view, self._plan)) for view in views]
        facts = {"tampered_replies": float(np.mean(tampered)), "comparisons_read": float(np.mean(read))}
        return WeightGuess({}, spent=Spent(steps=sum(tampered)), facts=facts)


@dataclass(frozen=True)
class TamperingPlan:
    """What an impostor adds to which replies, fixed before a session.

    Attributes:
        field: of the residues.
        product: whose replies.
        pairs: at the head, the two tokens that are lifted at each step ``[steps, 2]``; empty for another product.
        moved: elsewhere, which coordinate is moved, and by which share of the largest product.
    """

    field: Field
    product: int
    pairs: tuple[tuple[int, int], ...]
    moved: tuple[int, float] | None = None

    def change(self, step: int, scale: Tensor) -> Tensor:
        """Integers ``[m]`` to add to every row of the ``step``-th reply; ``scale [m]`` is that of the weights' rows."""
        if self.moved is not None:
            place, share = self.moved
            added = torch.zeros(len(scale), dtype=torch.int64)
            added[place] = round(share * (self.field.prime // 2))
            return added
        # as far apart as half the field: two up by one amount in the units of logits, all others down
        quarter = self.field.prime // 4
        added = torch.full((len(scale),), -quarter)
        scales = [float(scale[token]) for token in self.pairs[step % len(self.pairs)]]
        for token, own in zip(self.pairs[step % len(self.pairs)], scales, strict=True):
            added[token] = round(quarter * min(scales) / own)
        return added


@dataclass(frozen=True)
class LogitComparison:
    """What one token told: the logit of ``larger`` exceeds that of ``smaller`` at a step of the generation."""

    step: int
    larger: int
    smaller: int


def comparisons(view: AdversaryView, plan: TamperingPlan) -> list[LogitComparison]:
    """What the tokens of a request tell of hidden logits."""
    found = []
    for step, token in enumerate(view.output_ids if plan.pairs else ()):
        one, other = plan.pairs[step % len(plan.pairs)]
        if token in (one, other):
            found.append(LogitComparison(step, token, other if token == one else one))
    return found


def _pairs(public: Public) -> tuple[tuple[int, int], ...]:
    """Two ordinary tokens for every step of a context."""
    bundle, rng = public.bundle, generator(0, "tampering oracle")
    ordinary = np.array(sorted(set(range(bundle.geometry.vocab)) - bundle.special_ids))
    return tuple((int(a), int(b)) for a, b in (rng.choice(ordinary, 2, False) for _ in range(bundle.geometry.context)))


def _instead(plan: TamperingPlan, honest: UntrustedFactory) -> UntrustedFactory:
    return partial(TamperingDevice, plan, honest)


class TamperingDevice(Impersonation):
    """An honest device, but for the replies of one product.

    Args:
        plan: what to add.
        honest: makes the device that multiplies.
        channel: to the trusted side.
    """

    def __init__(self, plan: TamperingPlan, honest: UntrustedFactory, channel: Channel) -> None:
        super().__init__(honest(channel))
        self._plan = plan
        self._scales: list[Tensor] = []
        self._step = 0

    def handle(self, message: Message) -> Message | None:
        if isinstance(message, ExposedLayer) and message.product == self._plan.product:
            self._scales.append(message.scale)
        reply = super().handle(message)
        if isinstance(reply, MaskedOutput) and reply.product == self._plan.product and self.forced is None:
            return self._tampered(reply)
        return reply

    def _tampered(self, reply: MaskedOutput) -> MaskedOutput:
        y = self._plan.field.add(reply.y, self._plan.change(self._step, torch.cat(self._scales)).to(reply.y.device))
        self._step += 1
        return MaskedOutput(y, reply.product, reply.use)
