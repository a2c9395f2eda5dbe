"""Tasks of the Hugging Face hub, by name, for those who reach it or have them in their cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from smd_research.core.errors import ConfigError
from smd_research.data.tasks.given import Given, Row


@dataclass(frozen=True, kw_only=True)
class Hub(Given):
    """A data set of the hub, or of a folder that ``datasets`` reads.

    Attributes:
        dataset: its name there.
        config: its part, e.g. ``sst2`` of GLUE; None where it has one only.
        train_split: to tune on.
        evaluation_split: to evaluate on; it has to be labelled.
        text: column of the text.
        pair: column of the second text, of a task on pairs.
        label: column of the class.
    """

    dataset: str
    config: str | None
    train_split: str
    evaluation_split: str
    text: str
    pair: str | None
    label: str

    @property
    def _named(self) -> Sequence[str] | None:
        return getattr(self._loaded[self.train_split].features[self.label], "names", None)

    def _training_rows(self) -> Iterable[Row]:
        return self._rows(self.train_split)

    def _evaluation_rows(self) -> Iterable[Row] | None:
        return self._rows(self.evaluation_split)

    def _rows(self, split: str) -> Iterable[Row]:
        rows, names = self._loaded[split], self._named
        pairs = rows[self.pair] if self.pair else [None] * len(rows)
        for number, (text, pair, label) in enumerate(zip(rows[self.text], pairs, rows[self.label], strict=True)):
            where = f"{self.dataset} {split}, row {number}"
            known = label is not None and label != -1  # the hub's sign for a class that is kept back
            named = names[label] if known and names and isinstance(label, int) else str(label)
            yield Row(where, str(text or "").strip(), pair, named if known else "")

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        """Both splits.

        Raises:
            ConfigError: when the data set cannot be loaded or lacks a column.
        """
        # Imported where it is used: it takes a second, and no other task needs it.
        from datasets import load_dataset

        found = {}
        for split in dict.fromkeys((self.train_split, self.evaluation_split)):
            try:
                found[split] = load_dataset(self.dataset, self.config, split=split)
            except Exception as error:  # the hub's errors share no base class
                reason = str(error).split("\n", 1)[0]
                raise ConfigError(
                    f"task: cannot load {self.dataset!r} ({reason}); without a network use task=file "
                    "task.train_path=FILE task.evaluation_path=FILE"
                ) from error
            missing = {self.text, self.label, *([self.pair] if self.pair else [])} - set(found[split].column_names)
            if missing:
                raise ConfigError(
                    f"{self.dataset} {split}: no column {', '.join(sorted(missing))}; it has "
                    f"{', '.join(found[split].column_names)}"
                )
        return found
