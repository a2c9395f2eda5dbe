"""Bytes and messages of decoding under a defense that answers queries, counted and by formula.

A query and its reply carry, for each layer and query head, ``q`` and ``A`` of ``d`` values at the wire's width and
``m`` and ``g`` in fp32: ``L H_q (2 w d + 8)`` bytes a token and stream, which is ``4 L H_q (d+2)`` at 16 bits and
``L H_q (8 d + 8)`` in fp32 (the tensors of arXiv 2409.19134's released code, ``m`` and ``g`` widened).
"""

from collections.abc import Iterator
from functools import partial

from experiments.benches.case import Case, Label, Measured, Settings
from experiments.composing.cells import composed
from experiments.trials.lives import life_of
from experiments.trials.trial import lived
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView, Ledger
from smd_research.boundary.messages import PartialAttention, Query
from smd_research.core.errors import LabError
from smd_research.models.bundle import Geometry

WIDTHS = {"fp32": 4, "fp16": 2, "bf16": 2}
MODELS = ("model=embedded", *(f"model=random model.family={family}" for family in ("llama", "gpt2", "qwen3", "gemma2")))
DEFENSES = ("smd", "po")


def formula(geometry: Geometry, width: int) -> int:
    """Payload bytes of a token and stream, ``width`` bytes a value of ``q`` and ``A``."""
    return geometry.layers * geometry.heads * (2 * width * geometry.head_dim + 8)


def counted(view: AdversaryView, ledger: Ledger, layers: int) -> Measured:
    """Payload of queries and replies a token and stream, with messages and the traffic around them.

    Raises:
        LabError: when the record of messages and the ledger's count differ.
    """
    queries, replies = view.of(Query), view.of(PartialAttention)
    payload = sum(message.nbytes for message in (*queries, *replies))
    if payload != sum(ledger.payload_of[kind.__name__] for kind in (Query, PartialAttention)):
        raise LabError("the ledger counts other bytes than the record holds: traffic means nothing")
    tokens = len(queries) / layers
    everything = ledger.bytes_to_trusted + ledger.bytes_to_untrusted
    extra = {
        "messages_per_token": (len(queries) + len(replies)) / tokens,
        "formula_messages": 2.0 * layers,
        "other_bytes": (everything - payload) / tokens,
        "frame_bytes": (ledger.frame_bytes - everything) / tokens,
    }
    return Measured(payload / tokens / view.streams, extra)


def cases(settings: Settings) -> Iterator[Case]:
    """Bytes a token and stream: counted over by formula, which must be one."""
    workbench = Workbench()
    for defense in DEFENSES:
        for model in MODELS if defense == "smd" else MODELS[:1]:
            for wire, width in WIDTHS.items():
                words = [*model.split(), f"defense={defense}", f"wire_dtype={wire}", "attack=none", "n_prompts=1"]
                plan = composed([*words, "prompt_tokens=16", "max_new_tokens=8", f"seed={settings.seed}"])
                geometry = workbench.bundle(plan).geometry
                seen = lived(plan, workbench, life_of(plan), plan.parts.defense())
                (view,), (request,) = seen.views, seen.cost.requests
                name = str(plan.cell.model["name"])
                labels: dict[str, Label] = {"defense": defense, "streams": view.streams, "model": name}
                labels |= {
                    "wire": wire,
                    "layers": geometry.layers,
                    "heads": geometry.heads,
                    "head_dim": geometry.head_dim,
                }
                sides = partial(counted, view, request.ledger, geometry.layers), partial(formula, geometry, width)
                yield Case(f"{name} {defense} wire={wire} counted/formula", *sides, "B", 1, 0, labels)
