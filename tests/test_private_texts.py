"""With ``record_texts=false`` no private text lies in a results folder; without it, the same search finds them.

One cell of each life, tiny. The search reads every byte, and every column of every Parquet file.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_documents import write_documents

from experiments.commands.cli import main as smd
from experiments.trials import trial, tuning, workbench
from experiments.trials.seen import Seen
from smd_research.records import NO_TEXTS, Store, load, read_items
from smd_research.reports.tables.secret_types import secrets_by_type

NOTES = [
    ("Patient Maria Kellermann was seen on Monday", "Maria Kellermann", "name"),
    ("Please tell Jonas Weberling that he won", "Jonas Weberling", "name"),
    ("Call the office in Lissabonne tonight", "Lissabonne", "address"),
    ("The rent of Dorothea Ibsenroth went up", "Dorothea Ibsenroth", "name"),
]
SERVED = ["n_prompts=2", "prompt_tokens=12", "max_new_tokens=2"]
TUNED = ["model=random", "task=urgency", "task.train=12", "task.validation=4", "task.evaluation=4", "task.tokens=12"]
TUNED += ["tuning.steps=2", "tuning.batch=4", "tuning.checks=1"]
KEYED = ["defense=shaking", *(f"defense.{operator}=0" for operator in ("inflate", "tilt", "gaussian"))]
KEYED += ["defense.awareness_steps=0", "defense.function_steps=0"]
LIVES = {
    "a prompt attack": ["model=random", "defense=none", "attack=reading", *SERVED],
    "noise on tokens": ["model=random", "defense=dp_text", "attack=random", *SERVED],
    "decoys": ["model=random", "defense=po", "defense.fakes=1", "defense.requests=1", "attack=prior", *SERVED],
    "weights": ["model=random", "defense=slip", "attack=exposed_weights", *SERVED],
    "a mapping attack on a tuned model": [*TUNED, *KEYED, "attack=table_matching"],
    "a tuned model alone": [*TUNED, "defense=none", "attack=none"],
}
UNREAD = ("a tuned model alone",)
"""Of these a record holds no text in any case."""


class Needles:
    """What is searched for: gathered from what a cell holds in memory when it is scored."""

    def __init__(self) -> None:
        self.texts: set[str] = set()
        self.ids: set[tuple[int, ...]] = set()

    def gather(self, seen: Seen) -> None:
        truth = seen.truth
        for prompt in truth.prompts:
            self._add(prompt.ids, [(one.start, one.end) for one in prompt.spans], seen)
        if truth.texts is not None:
            texts = (truth.texts.training, truth.texts.held_out, truth.texts.evaluation)
            for part in texts:
                for ids, spans in zip(part.ids, part.spans or [()] * len(part.ids), strict=False):
                    self._add(tuple(map(int, ids)), [(one.start, one.end) for one in spans], seen)

    def _add(self, ids: Sequence[int], spans: Sequence[tuple[int, int]], seen: Seen) -> None:
        decode = seen.truth.bundle.decode
        self.texts |= {decode(ids[first : first + 5]) for first in range(len(ids) - 4)}
        self.texts |= {value for start, end in spans if len(value := decode(ids[start:end]).strip()) > 4}
        self.texts |= {text for one in ids if len(text := decode([one]).strip()) > 8}
        self.ids |= {tuple(ids[first : first + 5]) for first in range(len(ids) - 4)}


def haystack(folder: Path) -> bytes:
    """Every byte under a folder, and what its Parquet files hold when they are read."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found += [str(file.relative_to(folder)).encode(), file.read_bytes()]
        if file.suffix == ".parquet":
            for column in pq.read_table(file, use_threads=False).columns:
                values = column.to_pylist()
                texts = [[one for one in value if isinstance(one, str)] for value in values if isinstance(value, list)]
                found.append(json.dumps([values, ["".join(text) for text in texts]], ensure_ascii=False).encode())
    return b"\n".join(found)


def spellings(ids: Sequence[int]) -> Iterator[bytes]:
    """Token ids as text and as arrays."""
    yield from (between.join(map(str, ids)).encode() for between in (", ", ",", " "))
    yield from (np.array(ids, dtype=kind).tobytes() for kind in ("<i4", "<i8", "<u2"))


def found_in(folder: Path, needles: Needles) -> tuple[list[str], list[tuple[int, ...]]]:
    hay = haystack(folder)
    texts = [text for text in sorted(needles.texts) if text.encode() in hay]
    return texts, [ids for ids in sorted(needles.ids) if any(one in hay for one in spellings(ids))]


@pytest.fixture
def needles(monkeypatch: pytest.MonkeyPatch) -> Needles:
    found, real = Needles(), trial.score

    def spying(seen: Seen, *rest: Any) -> Any:
        found.gather(seen)
        return real(seen, *rest)

    monkeypatch.setattr(trial, "score", spying)
    monkeypatch.setattr(tuning, "PUBLIC_TEXTS", 10)  # public text takes longer to generate than all else here
    monkeypatch.setattr(workbench, "AUXILIARY_DOCUMENTS", 100)
    monkeypatch.setattr(workbench, "HELD_OUT_DOCUMENTS", 4)
    return found


@pytest.fixture
def notes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Somebody's own texts, with a secret in each."""
    path = write_documents(tmp_path_factory.mktemp("data") / "notes.jsonl", NOTES * 3)
    return ["data=jsonl", f"data.path={path}"]


@pytest.mark.parametrize("life", LIVES)
def test_no_text_lies_in_the_results_folder(
    life: str, notes: list[str], in_folder: Path, needles: Needles, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["run", *LIVES[life], *(notes if "task=urgency" not in LIVES[life] else [])]
    # One command for both, which then lives through the defense once.
    assert smd([*words, "-m", "record_texts=false,true", "results_dir=results/texts_${record_texts}"]) == 0
    bare, whole = Path("results/texts_False"), Path("results/texts_True")
    assert smd(["report", f"results_dir={bare}"]) == 0
    said = "".join(capfd.readouterr())
    assert [text for text in needles.texts if text in said] == []

    assert needles.texts
    assert needles.ids
    assert found_in(bare, needles) == ([], [])
    if life not in UNREAD:
        assert all(found_in(whole, needles)), "the search finds what is there"
    (first,), (second,) = Store(bare).records(), Store(whole).records()
    assert (first.status, second.status) == ("ok", "ok")
    assert (first.texts, second.texts) == (False, True)
    if "token_accuracy" in first.metrics:
        assert NO_TEXTS in said
    if life == "a prompt attack":  # the page shows those under the best attack alone
        assert NO_TEXTS in (bare / "report.html").read_text(encoding="utf-8")
    assert first.cell.id == second.cell.id
    _same_numbers(first.items, second.items)
    one, other = (secrets_by_type(load(folder)) for folder in (bare, whole))
    assert (one.columns, one.rows) == (other.columns, other.rows)

    assert smd([*words, f"results_dir={whole}", "record_texts=false"]) == 0
    assert "(known)" in capfd.readouterr().err
    assert found_in(whole, needles) == ([], []), "they are taken out of a record that is known"


def _same_numbers(bare: Any, whole: Any) -> None:
    """Per-item scores, sources, lengths and secrets found are those of the record with texts."""
    for one, other in zip(read_items(bare), read_items(whole), strict=True):
        kept = (one.prompt_id, one.source, one.length)
        assert kept == (other.prompt_id, other.source, other.length)
        assert one.metrics.keys() == other.metrics.keys()
        assert sum(secret.count for secret in one.secrets) == len(other.spans)
        if "token_accuracy" in one.metrics:
            assert one.metrics["token_accuracy"] == other.metrics["token_accuracy"]
