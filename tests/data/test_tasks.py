"""Tasks: labelled texts in disjoint splits, whatever they come from; one clear line for bad input."""

import gzip
import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from smd_research.core.errors import ConfigError
from smd_research.data.tasks import Example, Task
from smd_research.data.tasks.base import SPLITS
from smd_research.data.tasks.files import Files
from smd_research.data.tasks.hub import Hub
from smd_research.data.tasks.next_token import NextToken
from smd_research.data.tasks.rows import class_words, texts_of
from smd_research.data.tasks.synthetic import NoteType, Sentiment, Urgency
from smd_research.models import sources

SIZES: dict[str, int] = {"train": 10, "validation": 5, "evaluation": 5, "tokens": 12}
GENERATED = [NoteType, Urgency, Sentiment]


def files(path: Path, **more: Any) -> Files:
    options: dict[str, Any] = {"evaluation_path": None, "text": "text", "pair": None, "label": "label"}
    return Files(train_path=str(path), **SIZES, **{**options, "classes": None, "header": True, **more})


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", GENERATED)
def test_generated_texts_are_a_function_of_the_seed_and_stand_in_one_split(kind: type[Task]) -> None:
    task = kind(**SIZES)
    found = {split: task.examples(split, 120, 0) for split in SPLITS}
    assert task.examples("train", 10, 0) == found["train"][:10]
    assert task.examples("train", 10, 1) != found["train"][:10]
    texts = [{one.text for one in part} for part in found.values()]
    assert all(one.isdisjoint(other) for one, other in combinations(texts, 2))
    counts = Counter(one.label for one in found["train"])
    assert set(counts) == set(range(len(task.labels)))
    assert max(counts.values()) < 3 * min(counts.values())


@pytest.mark.parametrize("kind", [Urgency, Sentiment])
def test_no_word_tells_the_class_of_a_generated_message(kind: type[Task]) -> None:
    """The best rule of one word, found on other templates, is far from right; the text as a whole tells more."""
    task = kind(**SIZES)
    train, test = (task.examples(split, 600, 0) for split in ("train", "evaluation"))
    held: dict[str, list[int]] = {}
    for number, one in enumerate(train):
        for word in set(one.text.lower().split()):
            held.setdefault(word, []).append(number)
    labels = [one.label for one in train]
    base = sum(labels)

    def right(word: str) -> int:
        inside = sum(labels[number] for number in held[word])
        hits = inside + (len(labels) - len(held[word])) - (base - inside)
        return max(hits, len(labels) - hits)

    best = max(held, key=right)
    hits = sum((best in one.text.lower().split()) == bool(one.label) for one in test)
    assert max(hits, len(test) - hits) < 0.75 * len(test)


def test_sizes_are_positive() -> None:
    with pytest.raises(ConfigError, match=r"task\.validation=0"):
        NoteType(**{**SIZES, "validation": 0})
    with pytest.raises(ConfigError, match="unknown split"):
        NoteType(**SIZES).examples("test", 1, 0)


def test_a_repr_never_shows_the_text() -> None:
    assert "secret" not in repr(Example("a", "secret", 0))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\n"one, two",x\nthree,y\n' + "".join(f"row {i},{'xy'[i % 2]}\n" for i in range(60))),
        ("a.tsv", 'text\tlabel\n"one\tx\nthree\ty\n' + "".join(f"row {i}\t{'xy'[i % 2]}\n" for i in range(60))),
        ("a.json", json.dumps({str(i): {"text": f"row {i}", "label": "xy"[i % 2]} for i in range(60)})),
        ("a.jsonl", "\n".join(json.dumps({"text": f"row {i}", "label": "xy"[i % 2]}) for i in range(60))),
    ],
)
def test_every_form_of_file_is_read_plain_and_gzipped(tmp_path: Path, name: str, content: str) -> None:
    plain = files(written(tmp_path / name, content))
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    parts = {split: plain.examples(split, 100, 0) for split in SPLITS}
    assert plain.labels == ("x", "y")
    assert all(parts.values())
    texts = [one.text for part in parts.values() for one in part]
    assert len(texts) == len(set(texts)) >= 60
    assert [one.text for one in files(packed).examples("train", 5, 0)] == [one.text for one in parts["train"][:5]]


def test_a_text_of_the_evaluation_file_is_never_tuned_on(tmp_path: Path) -> None:
    rows = "".join(f"row {i},{'xy'[i % 2]}\n" for i in range(40))
    train, test = (written(tmp_path / f"{name}.csv", "text,label\n" + rows) for name in ("train", "test"))
    written(train, "text,label\n" + rows + "".join(f"more {i},{'xy'[i % 2]}\n" for i in range(40)))
    task = files(train, evaluation_path=str(test))
    assert len(task.examples("evaluation", 100, 0)) == 40
    assert all(one.text.startswith("more") for one in task.examples("train", 100, 0))


def test_a_table_without_a_header_is_addressed_by_number(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "".join(f"row {i}\tpair {i}\t{'xy'[i % 2]}\n" for i in range(60)))
    task = files(path, text=0, pair=1, label=2, header=False, classes=["y", "x"])
    one = task.examples("train", 1, 0)[0]
    assert task.labels == ("y", "x")
    assert one.document.text == f"{one.text}\n{one.text.replace('row', 'pair')}"


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ("text,label\na,x\nb,\n", {}, "a.csv, row 2: no label"),
        ("text,label\na,x\n ,y\n", {}, "row 2: the text is empty"),
        ("text,label\na,x\nb,y\n", {"label": "class"}, "no column 'class'; it has text, label"),
        ("text,label\na,x\nb,x\n", {}, "classes are x: two or more are needed"),
        ("text,label\na,x\nb,z\n", {"classes": ["x", "y"]}, "unknown label 'z'; the task has x, y"),
        ("", {}, "holds no row"),
        ('text,label\n"a,x\n', {}, "quote the field"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, content: str, more: dict[str, Any], says: str) -> None:
    task = files(written(tmp_path / "a.csv", content), **more)
    with pytest.raises(ConfigError, match=says) as caught:
        task.examples("train", 5, 0)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name, content, says in (
        ("a.xml", b"", "is unknown"),
        ("a.json", b"{", "not JSON"),
        ("a.csv.gz", b"no", "cannot be read"),
        ("b.csv", b"\xff", "not UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=says):
            files(tmp_path / name).examples("train", 1, 0)
    with pytest.raises(ConfigError, match="does not exist"):
        files(tmp_path / "none.csv").examples("train", 1, 0)


def hub(folder: Path, **more: Any) -> Hub:
    options: dict[str, Any] = {"config": None, "train_split": "train", "evaluation_split": "test", "pair": None}
    return Hub(dataset=str(folder), text="text", **{**options, "label": "label", **more}, **SIZES)


def test_a_hub_data_set_is_read_as_files_are(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"text": f"{split} {i}", "label": i % 2} for i in range(40)]
        written(tmp_path / f"{split}.jsonl", "\n".join(map(json.dumps, rows)))
    assert hub(tmp_path).labels == ("0", "1")
    assert {one.text.split()[0] for one in hub(tmp_path).examples("evaluation", 50, 0)} == {"test"}
    with pytest.raises(ConfigError, match="no column kind"):
        hub(tmp_path, label="kind").examples("train", 1, 0)
    with pytest.raises(ConfigError, match=r"task=file"):
        hub(tmp_path / "nothing").examples("train", 1, 0)


def test_a_kept_back_label_is_missing(tmp_path: Path) -> None:
    for split, last in (("train", 1), ("test", -1)):
        rows = [{"text": f"{split} {i}", "label": i % 2} for i in range(20)] + [{"text": "z", "label": last}]
        written(tmp_path / f"{split}.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match="no label"):
        hub(tmp_path).examples("evaluation", 50, 0)


def test_texts_are_cut_and_carry_their_class() -> None:
    bundle, task = sources.random("llama"), Urgency(**SIZES)
    examples = task.examples("train", 6, 0)
    texts = texts_of(examples, task, bundle)
    assert texts.lengths.max() == SIZES["tokens"]
    assert texts.labels == tuple(one.label for one in examples)
    assert texts.ids[0][0] == bundle.tokenizer.bos_token_id
    private = NextToken(**SIZES, register="mixed")
    assert texts_of(private.examples("train", 3, 0), private, bundle).labels == ()
    with pytest.raises(ConfigError, match="no text"):
        texts_of([], task, bundle)


def test_words_for_classes_must_differ() -> None:
    tokenizer = sources.embedded_tokenizer()
    assert len(set(class_words(Sentiment(**SIZES), tokenizer))) == 2

    class Alike(Urgency):
        @property
        def labels(self) -> tuple[str, ...]:
            return ("can wait", "can not wait")

    with pytest.raises(ConfigError, match="same token"):
        class_words(Alike(**SIZES), tokenizer)


@pytest.mark.parametrize(
    ("train", "evaluation", "more", "classes"),
    [
        ("glue/sst2_heldout.tsv.gz", "glue/sst2_test.tsv.gz", {"text": "sentence"}, 2),
        ("glue/QNLI.heldout.json.gz", None, {"text": "text_a", "pair": "text_b"}, 2),
        ("text-classification/agnews_test.tsv.gz", None, {"text": 0, "label": 1, "header": False}, 4),
        ("text-classification/trec_heldout.json.gz", None, {"text": "text_a"}, 6),
        ("banking77/train.csv.gz", "banking77/test.csv.gz", {"label": "category"}, 77),
    ],
)
def test_real_files_are_read(
    shared_data: Path, train: str, evaluation: str | None, more: dict[str, Any], classes: int
) -> None:
    apart = str(shared_data / evaluation) if evaluation else None
    task = files(shared_data / train, evaluation_path=apart, **more)
    assert len(task.labels) == classes
    assert all(len(task.examples(split, 40, 0)) == 40 for split in SPLITS)
    if evaluation == "glue/sst2_test.tsv.gz":
        assert len(task.examples("evaluation", 10_000, 0)) == 872
