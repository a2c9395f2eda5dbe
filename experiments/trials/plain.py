"""The unprotected model's answers: the yardstick of utility."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smd_research.core.progress import track
from smd_research.data.prompts import Prompt
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.models.self_check import ensure_plain


@dataclass(frozen=True, repr=False)
class Plain:
    """What the unprotected model does with a prompt.

    Attributes:
        ids: its greedy continuation.
        logits: teacher-forced on it, ``[len(ids), vocab]``.
    """

    ids: tuple[int, ...]
    logits: Tensor


def plain_answers(bundle: Bundle, prompts: Sequence[Prompt], max_new_tokens: int) -> tuple[Plain, ...]:
    """The unprotected model's greedy answer to every prompt.

    Raises:
        UnsupportedModelError: when the model's own decoding is no yardstick (``ensure_plain``).
    """
    ensure_plain(bundle)
    answers = []
    for prompt in track(prompts, "plain model"):
        bundle.check_prompt(len(prompt.ids), max_new_tokens)
        bundle.check_ids(torch.tensor(prompt.ids))
        ids = plain_greedy(bundle, prompt.ids, max_new_tokens)
        answers.append(Plain(ids, plain_logits(bundle, prompt.ids, ids)))
    return tuple(answers)
