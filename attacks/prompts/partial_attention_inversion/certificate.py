"""The attack's proof: does the guess reproduce every triple to the last bits, and does nothing else?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.deduction import Rows
from attacks.prompts.partial_attention_inversion.measurements import SIGMAS, Candidates, Measurements

_EPS = torch.finfo(torch.float32).eps


def misfit(seen: Measurements, rows: Rows, candidates: Sequence[Candidates], chosen: Sequence[int]) -> float:
    """Largest error of the replayed ``(m, g, A)``, in units of what rounding explains (at most one: explained).

    Args:
        seen: the measurements.
        rows: masses and tolerances.
        candidates: tokens of each position.
        chosen: index of the chosen candidate of each position.
    """
    heads, per_head, _ = seen.average.shape
    excess = torch.stack([c.excess[:, i] for c, i in zip(candidates, chosen, strict=True)], 1).double()
    values = torch.stack([c.values[i] for c, i in zip(candidates, chosen, strict=True)], 1).double()
    weights = excess.exp()
    mass = weights.sum(1)
    average = torch.bmm(weights.view(heads, per_head, -1), values.to(weights.dtype)) / mass.view(heads, per_head, 1)
    slack_mass, slack_average = _slacks(seen, rows, values.abs().amax((1, 2)))
    errors = (
        excess.amax(1).abs() / rows.tolerance if rows.named else torch.zeros(1),
        (mass - rows.mass).abs() / slack_mass,
        (average - seen.average).abs() / slack_average,
    )
    return max(float(error.max()) for error in errors)


def indistinguishable(
    seen: Measurements, rows: Rows, candidates: Sequence[Candidates], chosen: Sequence[int]
) -> dict[int, list[int]]:
    """Tokens that could replace the chosen one of a position without being seen above rounding, by position."""
    heads, per_head, _ = seen.average.shape
    largest = torch.stack([c.values[i] for c, i in zip(candidates, chosen, strict=True)]).abs().amax((0, 2))
    slack_mass, slack_average = _slacks(seen, rows, largest)
    found: dict[int, list[int]] = {}
    for position, (candidate, index) in enumerate(zip(candidates, chosen, strict=True)):
        weights = candidate.excess.exp()
        same = ((weights - weights[:, index, None]).abs() <= 2 * slack_mass[:, None]).all(0)
        same[index] = False
        others = same.nonzero()[:, 0]
        if bool(weights[:, index].any()):
            kept = []
            for other in others.tolist():
                share = (weights[:, [index, other]] / rows.mass[:, None]).view(heads, per_head, 2, 1)
                columns = share * candidate.values[[index, other]].transpose(0, 1)[:, None]
                kept.append(bool(((columns[:, :, 0] - columns[:, :, 1]).abs() <= 2 * slack_average).all()))
            others = others[torch.tensor(kept, dtype=torch.bool)]
        if len(others):
            found[position] = candidate.ids[others].tolist()
    return found


def _slacks(seen: Measurements, rows: Rows, largest: Tensor) -> tuple[Tensor, Tensor]:
    """What rounding explains of ``g`` ``[rows]`` and ``A`` ``[kv_heads, rows, head_dim]``; ``largest`` is max |v|."""
    relative = 2 * rows.tolerance + 8 * _EPS
    shape = seen.maximum.shape
    error = 2 * relative.view(*shape, 1) + seen.value_precision
    average = seen.precision * seen.average.abs() + error * largest.view(-1, 1, 1) + SIGMAS * seen.disturbance.average
    return rows.mass * relative, average
