"""What keyed shaking publishes: all of its options, nothing of its key."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShakingParameters:
    """How a key is drawn and put into a model.

    Attributes:
        fraction: share of the ids that are not special that is permuted.
        homophones: cipher ids of each frequent id.
        labels: whether labels are permuted.
        frequent: how many ids count as frequent.
        addv: strength of a vertical operator, 0 for none; as the next five.
        inflate: the same.
        tilt: the same.
        dx_fixp: the same.
        gaussian: the same.
        laplace: the same.
        head: what becomes of the output head.
        fresh_epsilon: of fresh noise for every occurrence; None: there is none.
        cipher_ids: how many ids the shaken tables have.
    """

    fraction: float
    homophones: int
    labels: bool
    frequent: int
    addv: float
    inflate: float
    tilt: float
    dx_fixp: float
    gaussian: float
    laplace: float
    head: str
    fresh_epsilon: float | None
    cipher_ids: int


@dataclass(frozen=True)
class RecoveryParameters:
    """How the model is trained to work with shaken tables.

    Attributes:
        awareness_steps: optimiser steps of awareness recovery.
        function_steps: of function recovery.
        batch: rows of a step.
        row_tokens: tokens of a row.
        learning_rate: peak.
        freeze_tables: whether the tables stay as they were shaken.
        precision: of the arithmetic; None: single precision.
        hidden_weight: of the loss on hidden states.
        logit_weight: of the divergence from the teacher.
        text_weight: of the loss on the text itself.
    """

    awareness_steps: int
    function_steps: int
    batch: int
    row_tokens: int
    learning_rate: float
    freeze_tables: bool
    precision: str | None
    hidden_weight: float
    logit_weight: float
    text_weight: float


@dataclass(frozen=True)
class SentinelParameters:
    """What SentinelLMs' construction publishes.

    Attributes:
        glides: glide reflections of the table.
    """

    glides: int
