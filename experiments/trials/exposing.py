"""What the exposed part of the weights gives away before anybody mends it, and what keeping the rest costs."""

import math
from collections.abc import Mapping, Sequence

from smd_research import metrics
from smd_research.defenses.slip.accounting import Sizes, cost
from smd_research.mechanisms.decomposition.hidden_subspace import overlaps
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle

CONTEXT = 256
"""Tokens that attention looks at where its FLOPs are counted."""


def exposure(
    original: Bundle,
    held: Bundle,
    ranks: Mapping[str, int],
    true: Sequence[float],
    out: Sequence[float],
    tokens: Sequence[int],
) -> dict[str, Estimate]:
    """Metrics of a split, in closed form and on held-out text.

    Args:
        original: the true model.
        held: the model as the device stores it.
        ranks: secret components by module name.
        true: negative log-likelihood of each held-out document under the true model, in nats.
        out: the same under the device's.
        tokens: of each document.

    Returns:
        Nothing where no layer keeps anything secret.
    """
    sizes = Sizes.of(original)
    spent = cost(sizes, ranks, min(CONTEXT, original.geometry.context))
    if not spent.secure_params:
        return {}
    increase = metrics.mean_by_token([b - a for a, b in zip(true, out, strict=True)], tokens)
    millions = spent.secure_params / 1e6
    shown = overlaps(original, held, ranks)
    square = [value for name, value in shown.items() if len(set(sizes.matrices[name])) == 1]
    oblong = [value for name, value in shown.items() if len(set(sizes.matrices[name])) == 2]
    both = spent.trusted_flops + spent.device_flops + spent.head_flops
    values = {
        "secret_parameters": spent.secure_params,
        "secret_share": spent.secure_share,
        "trusted_flops": spent.trusted_share,
        "secret_flops": spent.rank_flops / both,
        "attention_flops": spent.attention_flops / both,
        "protocol_flops": (spent.verify_flops + spent.mask_flops) / both,
        "hidden_overlap": _mean([*square, *oblong]),
        "hidden_overlap_square": _mean(square),
        "hidden_overlap_oblong": _mean(oblong),
    }
    scaled = Estimate(increase.mean / millions, increase.low / millions, increase.high / millions, increase.n)
    found = {"exposed_increase": increase, "increase_per_parameter": scaled}
    return found | {name: Estimate(float(value)) for name, value in values.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
