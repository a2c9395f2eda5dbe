"""How many tampered replies the check of weight decomposition's products lets pass, by kind and by repetitions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from experiments.benches._pipelines import Pipeline, pipelines
from experiments.benches.case import Case, Label, Measured, Settings
from smd_research.boundary.messages import MaskedInput, MaskedOutput
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import SlipDeployment
from smd_research.defenses.slip.parts import Exposed
from smd_research.mechanisms.integers.field import FIELDS, Field

REPETITIONS = (0, 1, 2)
ERRORS = 10_000
"""Random errors of a single element."""
REQUEST = 16
"""Tokens of the request whose replies are tampered with; its prompt is one token, so that every reply has one row."""


def cases(settings: Settings) -> Iterator[Case]:
    """Share of tampered replies that do not pass: each would end the session there and then."""
    for pipeline, verify in product(pipelines(settings.size), REPETITIONS):
        labels: dict[str, Label] = {**pipeline.labels, "part": "tampering", "verify": verify}
        side = partial(tampered, settings, pipeline, verify, ERRORS)
        yield Case(f"{pipeline.name} verify={verify} tampering", side, None, "share", 1, 0, labels)


@dataclass(frozen=True)
class Reply:
    """An honest reply as the device gives it, to what it was sent.

    Attributes:
        product: number of the product.
        sent: residues ``[rows, n]``.
        y: residues ``[rows, m]``.
    """

    product: int
    sent: Tensor
    y: Tensor

    @classmethod
    def all_of(cls, deployment: SlipDeployment, new: int) -> list["Reply"]:
        """Those of one recorded request, in order, where the trusted side computes."""
        at = deployment.bundle.device
        deployment.generate(Prompt("bench", "", (7,)), new)
        view = deployment.boundary.view(deployment.shows)
        pairs = zip(view.of(MaskedInput), view.of(MaskedOutput), strict=True)
        return [cls(asked.product, asked.x.to(at), answered.y.to(at)) for asked, answered in pairs]


def tampered(settings: Settings, pipeline: Pipeline, verify: int, errors: int, new: int = REQUEST) -> Measured:
    """Share of all tamperings that the deployed check refuses, and the same by kind."""
    bundle, field = pipeline.bundle(settings), FIELDS[pipeline.field]
    with pipeline.deploy(bundle, settings, verify=verify, record=True) as deployment:
        replies = Reply.all_of(deployment, new)
        rng = generator(settings.seed, "tampering", pipeline.name)
        kinds = tamperings(replies, deployment.parts.exposed, field, errors, rng)
        refused = {kind: _refused(deployment, lies) for kind, lies in kinds.items()}
        honest = _refused(deployment, replies)
    extra: dict[str, float] = {"refused_honest": sum(honest), "honest": len(honest)}
    for kind, each in refused.items():
        extra |= {f"{kind}_share": sum(each) / len(each), f"{kind}_tried": len(each)}
    every = [one for each in refused.values() for one in each]
    return Measured(sum(every) / len(every), {**extra, "passed": len(every) - sum(every), "tried": len(every)})


def _refused(deployment: SlipDeployment, replies: Iterator[Reply] | Sequence[Reply]) -> list[bool]:
    return [not deployment.rounds.accepts(reply.product, reply.sent, reply.y) for reply in replies]


def tamperings(
    replies: Sequence[Reply], exposed: Mapping[int, Exposed], field: Field, errors: int, rng: np.random.Generator
) -> dict[str, Iterator[Reply]]:
    """Wrong replies by kind (ours: of arXiv 2510.24999 the abstract alone was read), addressed as they should be.

    ``element``: a random error at a random element of a random reply. Of every reply, once: ``offset``: a random
    constant on all elements; ``zeros``; ``replay``: the first reply of the same product; ``swapped``: the product with
    the weights of another of the same shape.
    """
    return {
        "element": (_element(replies[int(rng.integers(len(replies)))], field, rng) for _ in range(errors)),
        "offset": (_offset(reply, field, rng) for reply in replies),
        "zeros": (Reply(reply.product, reply.sent, torch.zeros_like(reply.y)) for reply in replies),
        "replay": _replayed(replies),
        "swapped": _swapped(replies, exposed, field),
    }


def _element(reply: Reply, field: Field, rng: np.random.Generator) -> Reply:
    y = reply.y.clone().view(-1)
    place = int(rng.integers(y.numel()))
    y[place] = (y[place] + int(rng.integers(1, field.prime))) % field.prime
    return Reply(reply.product, reply.sent, y.view_as(reply.y))


def _offset(reply: Reply, field: Field, rng: np.random.Generator) -> Reply:
    return Reply(reply.product, reply.sent, field.reduce(reply.y + int(rng.integers(1, field.prime))))


def _replayed(replies: Sequence[Reply]) -> Iterator[Reply]:
    first: dict[int, Reply] = {}
    for reply in replies:
        earlier = first.setdefault(reply.product, reply)
        if earlier is not reply:
            yield Reply(reply.product, reply.sent, earlier.y)


def _swapped(replies: Sequence[Reply], exposed: Mapping[int, Exposed], field: Field) -> Iterator[Reply]:
    shapes = {number: one.weights.shape for number, one in exposed.items()}
    twins = {n: [other for other in shapes if other != n and shapes[other] == shape] for n, shape in shapes.items()}
    admitted = {number: field.admit(exposed[number].weights) for number in exposed if twins[number]}
    for reply in replies:
        if twins[reply.product]:
            y = field.product(reply.sent, admitted[twins[reply.product][0]])
            yield Reply(reply.product, reply.sent, y)
