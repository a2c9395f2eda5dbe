"""Weight decomposition's protocol: masked against unmasked bit for bit, traffic, rounds, offline work, mask storage."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial

import torch

from experiments.benches._pipelines import Pipeline, pipelines
from experiments.benches._slip_batches import BatchRunner, random_prompts, steps
from experiments.benches.case import Case, Measured, Settings
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import SlipDeployment
from smd_research.defenses.slip.accounting import Sizes, cost
from smd_research.mechanisms.integers.field import FIELDS

PROMPT = 4
BATCH, NEW = 100, 100
"""Prompts that are decoded together to compare the pipelines, and tokens generated for each."""
REQUEST = 32
"""Tokens of the request whose costs are counted; its prompt is one token, so that every round has one row."""
INT64 = 8


def cases(settings: Settings) -> Iterator[Case]:
    """For each pipeline: outputs that masks change, counted once, and milliseconds that a token's masks take."""
    for pipeline in pipelines(settings.size):
        count = partial(compared, settings, pipeline, BATCH, NEW)
        labels = {**pipeline.labels, "part": "exactness"}
        yield Case(f"{pipeline.name} exactness", count, None, "tokens", repeats=1, warmup=0, labels=labels)
        with ExitStack() as stack:
            deployed = cache(partial(_deploy, stack, settings, pipeline))
            side = partial(_costs, deployed, pipeline)
            yield Case(f"{pipeline.name} costs", side, None, "ms/token", labels={**pipeline.labels, "part": "costs"})


def compared(settings: Settings, pipeline: Pipeline, batch: int, new: int) -> Measured:
    """Generated tokens with a logit that differs in any bit between the masked and the unmasked integer pipeline."""
    bundle = pipeline.bundle(settings)
    prompts = random_prompts(bundle, batch, PROMPT, settings.seed)
    with (
        pipeline.deploy(bundle, settings) as masked,
        pipeline.deploy(bundle, settings, masking="none") as plain,
    ):
        tokens, values = differing(masked.keeper, plain.keeper, prompts, new)
    return Measured(tokens, {"compared_tokens": batch * new, "differing_logits": values})


def differing(one: BatchRunner, other: BatchRunner, prompts: torch.Tensor, new: int) -> tuple[int, int]:
    """Tokens with a logit that differs in any bit, and such logits, over a batch decoded by either."""
    tokens = values = 0
    for first, second in zip(steps(one, prompts, new), steps(other, prompts, new), strict=True):
        differs = first.float().view(torch.int32) != second.float().view(torch.int32)
        tokens += int(differs.any(-1).sum())
        values += int(differs.sum())
    return tokens, values


def _deploy(stack: ExitStack, settings: Settings, pipeline: Pipeline) -> SlipDeployment:
    return stack.enter_context(pipeline.deploy(pipeline.bundle(settings), settings))


def _costs(deployed: Callable[[], SlipDeployment], pipeline: Pipeline) -> Measured:
    return costs(deployed(), FIELDS[pipeline.field].prime.bit_length(), REQUEST)


def costs(deployment: SlipDeployment, bits: int, new: int) -> Measured:
    """Milliseconds that the masks of a decoded token take ahead of time, and all that a token costs besides.

    As sent and as stored a residue takes 8 bytes; packed, by formula, the bits of the field.
    """
    masking = deployment.rounds.masking
    before = masking.offline
    deployment.reserve(new, new)
    after, stored = masking.offline, masking.nbytes  # what earlier requests used up is dropped by then
    deployment.generate(Prompt("bench", "", (7,)), new)
    ledger = deployment.boundary.ledger
    there, back = (ledger.payload_of[name] / new for name in ("MaskedInput", "MaskedOutput"))
    other = (ledger.bytes_to_untrusted + ledger.bytes_to_trusted) / new - there - back
    closed = cost(Sizes.of(deployment.bundle), deployment.parts.ranks, (new + 1) // 2)
    inputs = closed.sent_elements - closed.mask_elements
    extra = {
        "rounds_per_token": ledger.rounds / new,
        "sent_bytes": there,
        "returned_bytes": back,
        "traffic_bytes": there + back,
        "formula_bytes": float(INT64 * closed.sent_elements),
        "packed_sent_bytes": inputs * bits / 8,
        "packed_returned_bytes": closed.mask_elements * bits / 8,
        "other_bytes": other,
        "offline_mflop": (after.flops - before.flops) / new / 1e6,
        "offload_mflop": (closed.device_flops + closed.head_flops) / 1e6,
        "stored_bytes": stored / new,
        "packed_stored_bytes": closed.mask_elements * bits / 8,
    }
    return Measured(1e3 * (after.seconds - before.seconds) / new, extra)
