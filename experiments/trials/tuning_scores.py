"""From one life of a tuned model to the numbers of a record; the truth and the attack's mapping meet here alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from experiments.trials.scoring import token_texts
from smd_research import metrics
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import TuningRows
from smd_research.core.guess import MappingGuess
from smd_research.data.tasks import Task
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.records import Item
from smd_research.training.buckets import Texts

SHOWN_TEXTS = 20
"""Texts tuned on that a record shows as the attack read them."""


@dataclass(frozen=True, repr=False)
class Seen:
    """What tuning gave the user, and what it took.

    Attributes:
        task: the task.
        training: texts that were tuned on, with their classes.
        held_out: texts that decided when to stop, uploaded after them.
        evaluation: texts of the evaluation part, with their classes.
        predicted: the class that was told of each; empty for next-token tuning.
        scored: for next-token tuning, negative log-likelihood in nats and tokens predicted right of each text.
        taken: cost metrics by name.
    """

    task: Task
    training: Texts
    held_out: Texts
    evaluation: Texts
    predicted: tuple[int, ...]
    scored: tuple[tuple[float, int], ...]
    taken: Mapping[str, float]

    @property
    def uploaded(self) -> NDArray[np.int64]:
        """What the user wrote of all that was uploaded, token ids ``[n]``."""
        return np.concatenate([np.asarray(text, dtype=np.int64) for text in (*self.training.ids, *self.held_out.ids)])


def utility(seen: Seen) -> tuple[dict[str, Estimate], list[Item]]:
    """Accuracy and F1 of the classes; of next-token tuning, perplexity and accuracy over tokens; one item a text."""
    if seen.task.labels:
        truth, told = seen.evaluation.labels, seen.predicted
        right = [one == other for one, other in zip(truth, told, strict=True)]
        items = [
            Item(f"evaluation-{number}", {"accuracy": float(hit), "label": float(label), "predicted": float(answer)})
            for number, (hit, label, answer) in enumerate(zip(right, truth, told, strict=True))
        ]
        f1 = metrics.f1_macro(truth, told, len(seen.task.labels))
        return {"accuracy": metrics.summarise("accuracy", right), "f1_macro": f1}, items
    counts = [len(text) - 1 for text in seen.evaluation.ids if len(text) > 1]
    nll, hits = [one for one, _ in seen.scored], [hit for _, hit in seen.scored]
    items = [
        Item(f"evaluation-{number}", {"nll": one, "nll_tokens": float(count), "accuracy": hit / count})
        for number, (one, hit, count) in enumerate(zip(nll, hits, counts, strict=True))
    ]
    return {"accuracy": metrics.running_share(hits, counts), "perplexity": metrics.perplexity(nll, counts)}, items


def cost(seen: Seen) -> dict[str, Estimate]:
    """Seconds, bytes and operations of each phase."""
    return {name: Estimate(float(value)) for name, value in seen.taken.items()}


def mapping_scores(
    guess: MappingGuess,
    truth: NDArray[np.int64],
    said: NDArray[np.int64],
    upload: AdversaryView,
    bundle: Bundle,
    seconds: float,
) -> tuple[dict[str, Estimate], list[Item]]:
    """How much of the private texts and of the vocabulary a mapping gives away, and the first texts as it reads them.

    A token counts where the mapping reads what the user wrote: where noise replaced it, even the true mapping fails.

    Args:
        guess: the attack's.
        truth: the plain id of each cipher id ``[V']``.
        said: what the user wrote of the upload, token ids ``[n]``.
        upload: what was seen of the upload.
        bundle: for its tokenizer and special ids.
        seconds: that the attack took.
    """
    special, kept = (np.isin(ids, sorted(bundle.special_ids)) for ids in (truth, said))
    rows = upload.of(TuningRows)
    cipher = np.concatenate([row.ids.numpy() for row in rows]).astype(np.int64)
    ends = list(accumulate((int(n) for row in rows for n in row.lengths), initial=0))
    hits = np.add.reduceat(((guess.mapping[cipher] == said) & ~kept).astype(np.int64), ends[:-1])
    counts = np.add.reduceat((~kept).astype(np.int64), ends[:-1])
    found = {
        "token_recovery": metrics.running_share(hits.tolist(), counts.tolist()),
        "id_recovery": metrics.summarise("id_recovery", (guess.mapping == truth)[~special].tolist()),
        "attack_s": Estimate(seconds),
        "attack_candidates": Estimate(float(guess.spent.candidates)),
        **{name: Estimate(float(value)) for name, value in guess.facts.items()},
    }
    if guess.certified is not None:
        found["certified"] = Estimate(float(guess.certified))
    shown = enumerate(pairwise(ends[: SHOWN_TEXTS + 1]))
    items = [_item(n, said[first:last], guess.mapping[cipher[first:last]], bundle) for n, (first, last) in shown]
    return found, items


def _item(number: int, truth: NDArray[np.int64], guess: NDArray[np.int64], bundle: Bundle) -> Item:
    plain, told = truth.tolist(), guess.tolist()
    shares: Sequence[str] = [text or "" for text in token_texts(plain, bundle)]
    return Item(f"private-{number}", {}, shares, token_texts(told, bundle), (), plain, told)
