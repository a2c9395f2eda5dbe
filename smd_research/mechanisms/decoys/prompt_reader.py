"""A language model that reads several versions of a prompt side by side."""

import math
from copy import copy

import torch
from torch import Tensor

from smd_research.core.errors import PromptError
from smd_research.models.branches import Branches
from smd_research.models.bundle import Bundle


class PromptReader:
    """The sampler's model, reading virtual prompts ``rows [streams, n]`` side by side from the first secret on."""

    def __init__(self, bundle: Bundle, temperature: float, rows: Tensor, start: int) -> None:
        self.rows = rows
        self._temperature = temperature
        self._barred = torch.tensor(sorted(bundle.special_ids), dtype=torch.long, device=rows.device)
        self._branches = Branches(bundle, rows[0, :start].tolist() or _beginning(bundle), len(rows))
        self._read = start

    def read_to(self, position: int) -> None:
        """Read the tokens before ``position``."""
        if position > self._read:
            self._branches.feed(self.rows[:, self._read : position])
            self._read = position

    def log_p(self) -> Tensor:
        """Log probabilities ``[streams, vocab]`` (fp64) of what comes next, special tokens barred."""
        logits = self._branches.logits.double() / self._temperature
        return torch.log_softmax(logits.index_fill(-1, self._barred, -math.inf), dim=-1)

    def fork(self, index: Tensor, rows: Tensor) -> "PromptReader":
        """Read on with ``rows [count, n]``, each of which goes on from the stream ``index [count]``."""
        twin = copy(self)
        twin.rows, twin._branches = rows, self._branches.fork(index)
        return twin


def _beginning(bundle: Bundle) -> list[int]:
    """What a model reads before a text that begins with a secret."""
    token = bundle.tokenizer.bos_token_id
    token = bundle.end_id if token is None else token
    if token is None:
        raise PromptError("the prompt begins with a secret, and the tokenizer has no token to begin a text with")
    return [token]
