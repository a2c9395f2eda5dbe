"""The attacker's own data: public text of the same kind, packed into rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import Public
from smd_research.core.errors import ConfigError, NotApplicableError


@dataclass(frozen=True)
class Budget:
    """What a training attack may spend; the from-scratch control spends the same.

    Attributes:
        tokens: of public text, those that it validates on included.
        steps: optimiser steps.
        batch: rows of a step.
        row_tokens: tokens of a packed row.
        validation: share of the rows that the attacker holds back, to choose its learning rate and when to stop.

    Raises:
        ConfigError: for a budget without a row to train on and one to validate on.
    """

    tokens: int
    steps: int
    batch: int
    row_tokens: int
    validation: float

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.row_tokens < 2:
            raise ConfigError("attack: steps and batch are at least 1, row_tokens at least 2")
        if not 0 < self.validation < 1 or self.tokens < 2 * self.row_tokens:
            raise ConfigError("attack: tokens fill at least two rows, and validation is a share between 0 and 1")


@dataclass(frozen=True)
class TrainingRows:
    """Packed rows ``[n, row_tokens]`` to train on, and those held back."""

    training: Tensor
    validation: Tensor


def rows(public: Public, budget: Budget) -> TrainingRows:
    """``<bos> document <eos> <bos> document <eos> ...`` cut into rows; nothing beyond the budget is read.

    Raises:
        NotApplicableError: when there is less public text than the budget asks for.
    """
    end = public.bundle.end_id
    ids: list[int] = []
    for document in public.documents(budget.tokens):
        ids += document if end is None else (*document, end)
        if len(ids) >= budget.tokens:
            break
    count = budget.tokens // budget.row_tokens
    if len(ids) < count * budget.row_tokens:
        raise NotApplicableError(
            f"the data holds {len(ids)} tokens of public text, attack.tokens={budget.tokens}: lower it"
        )
    packed = torch.tensor(ids[: count * budget.row_tokens]).view(count, budget.row_tokens)
    held_back = min(count - 1, max(1, round(budget.validation * count)))
    return TrainingRows(packed[held_back:], packed[:held_back])
