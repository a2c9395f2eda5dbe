"""The public model as judge of a mapping: text that was read right is text it expects.

One reading also scores every alternative: at each position the model gives the probability of every token after what
stands before it, and the sums over the occurrences of a cipher id say which plain id it should have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks.base import Ids
from smd_research.core.guess import Spent
from smd_research.models.bundle import Bundle

_WINDOW = 128  # tokens read in one row
_ROWS = 8  # rows in one batch


@dataclass(frozen=True, repr=False, eq=False)
class JudgedReading:
    """What the model made of the text under one mapping.

    Attributes:
        expected: for each cipher id asked for, sums over its occurrences of the log probability of every token
            ``[k, V]``.
        occurrences: how many of its occurrences were read ``[k]``.
        likelihood: mean log probability of the text as it was read, in nats a token.
    """

    expected: NDArray[np.float32]
    occurrences: NDArray[np.float64]
    likelihood: float


class Judge:
    """Reads encoded text under mappings, and remembers how each read.

    Args:
        bundle: the public model.
        texts: encoded.
        tokens: how much of them is read each time.
    """

    def __init__(self, bundle: Bundle, texts: Sequence[Ids], tokens: int) -> None:
        self._bundle = bundle
        window = min(_WINDOW, bundle.geometry.context)
        rows = [text[start : start + window] for text in texts for start in range(0, len(text) - 1, window)]
        ends = np.cumsum([len(row) for row in rows])
        self._rows = rows[: int(np.searchsorted(ends, tokens)) + 1]
        self.tokens = tokens
        self.spent = Spent()
        self._likelihoods: dict[bytes, float] = {}

    def read(self, mapping: Ids, types: Ids) -> JudgedReading:
        """Read the text under a mapping.

        Args:
            mapping: plain id of each cipher id ``[V']``, ``-1`` where unknown.
            types: the cipher ids to judge ``[k]``.
        """
        place = np.full(len(mapping), len(types))
        place[types] = np.arange(len(types))
        plain = torch.from_numpy(np.maximum(mapping, 0))
        found = torch.zeros(len(types) + 1, self._bundle.geometry.vocab)
        occurrences = torch.zeros(len(types) + 1, dtype=torch.float64)
        total = 0.0
        for start in range(0, len(self._rows), _ROWS):
            batch = self._rows[start : start + _ROWS]
            lengths = torch.tensor([len(row) for row in batch])
            cipher = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in batch], batch_first=True)
            here = (torch.arange(cipher.shape[1])[None] < lengths[:, None])[:, 1:]
            expected = self._expected(plain[cipher])[here]
            following = cipher[:, 1:][here]
            where = torch.from_numpy(place)[following]
            found.index_add_(0, where, expected)
            occurrences += torch.bincount(where, minlength=len(occurrences))
            total += float(expected.gather(1, plain[following][:, None]).sum())
        mean = self._likelihoods[mapping.tobytes()] = total / max(float(occurrences.sum()), 1)
        return JudgedReading(found[:-1].numpy(), occurrences[:-1].numpy(), mean)

    def likelihood(self, mapping: Ids) -> float:
        """Mean log probability of the text as read, in nats a token."""
        if mapping.tobytes() not in self._likelihoods:
            self.read(mapping, np.zeros(0, dtype=np.int64))
        return self._likelihoods[mapping.tobytes()]

    @property
    def vocabulary(self) -> int:
        """Tokens that the public model knows."""
        return len(self._bundle.embedding)

    @torch.inference_mode()
    def _expected(self, ids: Tensor) -> Tensor:
        """Log probabilities of what follows each token but the last ``[rows, n - 1, V]``."""
        logits: Tensor = self._bundle.model(input_ids=ids.to(self._bundle.device), use_cache=False).logits
        parameters = sum(p.numel() for p in self._bundle.model.parameters())
        self.spent += Spent(candidates=ids.numel(), flops=2.0 * parameters * ids.numel())
        return torch.log_softmax(logits[:, :-1].float(), dim=-1).cpu()
