"""Tasks on labelled texts that exist: how rows of a training and an evaluation part become three disjoint splits."""

import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from smd_research.core.errors import ConfigError
from smd_research.data.tasks.base import EVALUATION, VALIDATION, Example, Task, check_split, drawn

_VALIDATION_SHARE, _EVALUATION_SHARE = 10, 25  # per cent of the training part; the second where there is no other part


@dataclass(frozen=True, repr=False)
class Row:
    """A labelled text as it was read; the repr shows nothing of it.

    Attributes:
        where: for messages, e.g. ``train.tsv, row 7``.
        text: the text.
        pair: the second text of a task on pairs.
        label: its class as it stands there; empty where it is missing.
    """

    where: str
    text: str
    pair: str | None
    label: str


@dataclass(frozen=True, kw_only=True)
class Given(Task):
    """Rows from somewhere.

    A text of the training part belongs to the validation split when a stable hash of it says so (a tenth do), and is
    left out when it is a text of the evaluation part as well. Where there is no evaluation part, a quarter of the
    training part is, by the same hash.
    """

    @abstractmethod
    def _training_rows(self) -> Iterable[Row]:
        """Rows of the training part."""

    @abstractmethod
    def _evaluation_rows(self) -> Iterable[Row] | None:
        """Rows of the evaluation part; None where there is none."""

    @property
    def _named(self) -> Sequence[str] | None:
        """Classes as they stand in the rows, in order; None: those of the training part, sorted."""
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def examples(self, split: str, n: int, seed: int) -> list[Example]:
        check_split(split)
        return drawn(self._splits[split], split, n, seed)

    @cached_property
    def _training(self) -> list[Row]:
        return _checked(self._training_rows())

    @cached_property
    def _classes(self) -> dict[str, int]:
        """Index of each class by how it stands in the rows."""
        names = self._named if self._named is not None else sorted({row.label for row in self._training})
        if len(set(names)) < 2 or len(set(names)) < len(names):
            raise ConfigError(
                f"the task's classes are {', '.join(names) or 'none'}: two or more are needed, all different"
            )
        return {name: index for index, name in enumerate(names)}

    @cached_property
    def _splits(self) -> dict[str, list[Example]]:
        apart = self._evaluation_rows()
        evaluated = None if apart is None else _checked(apart)
        known = {(row.text, row.pair) for row in evaluated or ()}
        splits: dict[str, list[Example]] = {"train": [], "validation": [], "evaluation": []}
        seen: set[tuple[str, str | None]] = set()
        for row in self._training:
            key = (row.text, row.pair)
            if key in seen or key in known:
                continue
            seen.add(key)
            splits[_split_of(row.text, evaluated is None)].append(self._example(row))
        splits[EVALUATION] += [self._example(row) for row in evaluated or ()]
        return splits

    def _example(self, row: Row) -> Example:
        if row.label not in self._classes:
            raise ConfigError(f"{row.where}: unknown label {row.label!r}; the task has {', '.join(self._classes)}")
        return Example(row.where, row.text, self._classes[row.label], row.pair)


def _split_of(text: str, without_evaluation: bool) -> str:
    bucket = zlib.crc32(text.encode()) % 100
    if bucket < _VALIDATION_SHARE:
        return VALIDATION
    return EVALUATION if without_evaluation and bucket < _VALIDATION_SHARE + _EVALUATION_SHARE else "train"


def _checked(rows: Iterable[Row]) -> list[Row]:
    """Rows that all have a text and a label.

    Raises:
        ConfigError: naming the first that has not, or that there is none.
    """
    found = list(rows)
    if not found:
        raise ConfigError("the task's data holds no row: see the options of task=")
    for row in found:
        if not row.text.strip():
            raise ConfigError(f"{row.where}: the text is empty; give a text or remove the row")
        if not row.label:
            raise ConfigError(f"{row.where}: no label; give one, or remove the row")
    return found
