"""What one life of a defense leaves: what was seen, what was true, what the user got, what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smd_research.boundary import AdversaryView, Ledger
from smd_research.core.guarantee import Guarantee
from smd_research.data.prompts import Prompt, TokenSpan
from smd_research.data.tasks import Task
from smd_research.data.texts import Texts
from smd_research.defenses.base import Generation, Prepared
from smd_research.metrics import Estimate
from smd_research.models.bundle import Bundle
from smd_research.records import Item

SERVE, TUNE = "serve", "tune"
"""The two lives: prompts are served; or a model is tuned on private texts, then used."""


@dataclass(frozen=True, repr=False)
class TaskTexts:
    """The texts of a task, with their classes.

    Attributes:
        task: the task.
        training: texts that were tuned on.
        held_out: texts that decided when to stop, uploaded after them.
        evaluation: texts on which the tuned model was scored.
    """

    task: Task
    training: Texts
    held_out: Texts
    evaluation: Texts

    @property
    def uploaded(self) -> NDArray[np.int64]:
        """What the user wrote of all that was uploaded to tune on, token ids ``[n]``."""
        return np.concatenate([np.asarray(text, dtype=np.int64) for text in (*self.training.ids, *self.held_out.ids)])

    @property
    def uploaded_spans(self) -> tuple[tuple[TokenSpan, ...], ...]:
        """The secrets of each text that was uploaded, in token offsets of the text."""
        return (*self.training.spans, *self.held_out.spans)


@dataclass(frozen=True, repr=False)
class Truth:
    """What was secret, for scores only.

    Attributes:
        bundle: the user's model, before the defense did anything to it.
        prompts: those that were served, in the order of the views; none where the model was tuned.
        texts: those of the task; None where prompts were served.
    """

    bundle: Bundle
    prompts: tuple[Prompt, ...] = ()
    texts: TaskTexts | None = None


@dataclass(frozen=True, repr=False)
class Utility:
    """What the user got.

    Attributes:
        prompts: metrics of each prompt, by name.
        items: of a task, one a text evaluated.
        means: of the cell as a whole.
    """

    prompts: tuple[Mapping[str, float], ...] = ()
    items: tuple[Item, ...] = ()
    means: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class ServedRequest:
    """What one prompt took.

    Attributes:
        ledger: messages and bytes.
        timed: the unrecorded generation.
        kv_bytes: KV caches held by the trusted and the untrusted party at the end.
    """

    ledger: Ledger
    timed: Generation
    kv_bytes: tuple[int, int]


@dataclass(frozen=True, repr=False)
class Cost:
    """What it took.

    Attributes:
        requests: one a prompt.
        means: of the cell as a whole.
    """

    requests: tuple[ServedRequest, ...] = ()
    means: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Seen:
    """One life of a defense.

    Attributes:
        prepared: what was served, shown and promised.
        public: the model as the untrusted party holds it at the end.
        before: the same as it was before it was tuned on private data; None where it was not tuned.
        views: what the untrusted party saw: of each prompt; or of the upload, of tuning, of inference.
        truth: what was secret.
        utility: what the user got.
        cost: what it took.
        tuned: what private tuning promises beside the defense: to labels, to texts tuned on.
        mechanisms: what keeps those promises, as published beside the defense's own parameters.
    """

    prepared: Prepared
    public: Bundle
    before: Bundle | None
    views: tuple[AdversaryView, ...]
    truth: Truth
    utility: Utility
    cost: Cost
    tuned: tuple[Guarantee, ...] = ()
    mechanisms: tuple[object, ...] = ()

    @property
    def guarantees(self) -> str:
        """All that is promised, in words; ``none`` where nothing is."""
        promised = [self.prepared.guarantee, *self.tuned]
        return " | ".join(str(one) for one in promised if one is not None) or "none"
