"""Private texts that were tuned on, beside what an attack read of them: what came back, and how much is chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.trials.items import token_texts
from experiments.trials.pursuit import Pursuit
from experiments.trials.seen import TaskTexts
from smd_research import metrics
from smd_research.data.prompts import TokenSpan
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.records import Item

SHOWN_TEXTS = 20
"""Texts tuned on that a record shows as the attack read them."""


@dataclass(frozen=True, repr=False)
class ReadTexts:
    """The first of the texts that were uploaded, in their order.

    Attributes:
        said: what the user wrote, token ids of each.
        told: what the attack made of it, as many; -1 where it abstains.
        spans: the secrets of each in token offsets; fewer where none are marked.
    """

    said: Sequence[NDArray[np.int64]]
    told: Sequence[NDArray[np.int64]]
    spans: Sequence[Sequence[TokenSpan]]

    @classmethod
    def of(cls, said: Sequence[NDArray[np.int64]], told: Sequence[NDArray[np.int64]], texts: TaskTexts) -> "ReadTexts":
        """With the secrets that the task marks."""
        return cls(said, told, texts.uploaded_spans[: len(said)])

    def shares(self, bundle: Bundle, frequent: int) -> dict[str, Estimate]:
        """What was recovered of running tokens and of secrets.

        Args:
            bundle: for its special ids, which do not count.
            frequent: the most frequent token of public text: who reads it everywhere has learned nothing.
        """
        special = sorted(bundle.special_ids)
        own = [~np.isin(ids, special) for ids in self.said]
        counts = [int(kept.sum()) for kept in own]
        texts = list(zip(self.said, self.told, own, strict=True))
        hits = [int(((told == said) & kept).sum()) for said, told, kept in texts]
        usual = [int(((said == frequent) & kept).sum()) for said, _, kept in texts]
        spans = [
            metrics.span_exact(said.tolist(), told.tolist(), secrets)
            for said, told, secrets in zip(self.said, self.told, self.spans, strict=False)
        ]
        return {
            "token_recovery": metrics.running_share(hits, counts),
            "control_token_recovery": metrics.running_share(usual, counts),
            "span_exact": metrics.summarise("span_exact", spans),
        }

    def items(self, bundle: Bundle) -> tuple[Item, ...]:
        """The first texts as they were read, for the record."""
        return tuple(self._item(number, bundle) for number in range(min(len(self.said), SHOWN_TEXTS)))

    def _item(self, number: int, bundle: Bundle) -> Item:
        plain, told = self.said[number].tolist(), self.told[number].tolist()
        shares: Sequence[str] = [text or "" for text in token_texts(plain, bundle)]
        spans = tuple(self.spans[number]) if number < len(self.spans) else ()
        return Item(f"private-{number}", {}, shares, token_texts(told, bundle), spans, plain, told)


def public_counts(pursuit: Pursuit, special: bool = False) -> NDArray[np.float64]:
    """How often each token stands in public text ``[V]``; special ones count only where asked for."""
    bundle = pursuit.seen.truth.bundle
    tokens = [token for text in pursuit.public.corpus for token in text]
    counts = np.bincount(np.array(tokens, dtype=np.int64), minlength=bundle.geometry.vocab).astype(np.float64)
    if not special:
        counts[sorted(bundle.special_ids)] = 0
    return counts
