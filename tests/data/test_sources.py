"""Documents from files and data sets, and what a user reads when a file is wrong."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.composing.build import build
from experiments.composing.cells import values_of
from smd_research.core.errors import ConfigError
from smd_research.core.paths import conf_dir
from smd_research.data.prompts import Document, Span
from smd_research.data.sources import (
    EVALUATION,
    PROMPT_SHARE,
    TRAIN,
    Csv,
    DataSource,
    Division,
    HubTexts,
    Jsonl,
    Synthetic,
    Text,
)


def jsonl(folder: Path, *entries: object) -> str:
    file = folder / "notes.jsonl"
    file.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries) + "\n", encoding="utf-8")
    return str(file)


def test_jsonl_reads_texts_and_spans(tmp_path: Path) -> None:
    entries = [
        {"text": f"Ann Bee{number} called.", "spans": [{"start": 0, "end": 3, "type": "name"}]} for number in range(40)
    ]
    source = Jsonl(jsonl(tmp_path, *entries, {"text": "No secret."}))
    evaluated, public = source.documents(EVALUATION, 100, 0), source.documents(TRAIN, 100, 0)
    assert {document.text for document in evaluated + public} == {str(e["text"]) for e in entries} | {"No secret."}
    assert not {document.text for document in evaluated} & {document.text for document in public}
    assert len(evaluated) < len(public)
    named = next(document for document in evaluated if document.spans)
    assert named.spans == (Span(0, 3, "name"),)
    assert source.documents(EVALUATION, 100, 0) == evaluated
    assert source.documents(EVALUATION, 2, 0) == evaluated[:2]
    assert [d.id for d in source.documents(TRAIN, 100, 1)] != [d.id for d in public]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json}", "line 2: not JSON"),
        ('["a"]', 'line 2: no "text"'),
        ('{"text": 3}', 'line 2: no "text"'),
        ('{"text": "  "}', "document 'notes-2': the text is empty"),
        ('{"text": "ab", "spans": "x"}', 'line 2: "spans" is not a list'),
        ('{"text": "ab", "spans": [{"start": 0, "end": 3, "type": "name"}]}', "line 2: a span needs .* <= 2"),
        ('{"text": "ab", "spans": [{"start": 1, "end": 1, "type": "name"}]}', "line 2: a span needs"),
        ('{"text": "ab", "spans": [{"start": 0, "end": 1}]}', "line 2: a span needs"),
        ('{"text": "ab", "spans": [7]}', "line 2: a span needs"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Jsonl(jsonl(tmp_path, {"text": "good"}, line)).documents(EVALUATION, 5, 0)
    assert "\n" not in str(caught.value)


def test_errors_do_not_quote_the_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Jsonl(jsonl(tmp_path, '{"text": "Ann Secret" oops}')).documents(EVALUATION, 5, 0)
    assert "Secret" not in str(caught.value)


def test_csv_reads_a_column(tmp_path: Path) -> None:
    file = tmp_path / "notes.csv"
    file.write_text('id,text,note\n1,"one, with\na break",x\n2,two,y\n3,three,z\n', encoding="utf-8")
    found = Csv(str(file)).documents(EVALUATION, 9, 0) + Csv(str(file)).documents(TRAIN, 9, 0)
    assert {document.text for document in found} == {"one, with\na break", "two", "three"}
    assert {document.text for document in Csv(str(file), column="note").documents(EVALUATION, 9, 0)} <= {"x", "y", "z"}
    with pytest.raises(ConfigError, match=r"no column 'body'; set data\.column to one of id, text, note"):
        Csv(str(file), column="body").documents(EVALUATION, 1, 0)
    file.write_text('text\nfirst\n""\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="document 'notes-3': the text is empty"):
        Csv(str(file)).documents(EVALUATION, 1, 0)


def test_text_is_separated_by_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "letters.txt"
    file.write_bytes(b"Dear Ann,\r\nhow are you?\r\n\r\n\r\nDear Bob,\r\nfine.")
    found = Text(str(file)).documents(EVALUATION, 9, 0) + Text(str(file)).documents(TRAIN, 9, 0)
    assert {(d.id, d.text) for d in found} == {
        ("letters-1", "Dear Ann,\nhow are you?"),
        ("letters-5", "Dear Bob,\nfine."),
    }


@pytest.mark.parametrize("source", [Jsonl, Csv, Text])
def test_missing_and_unreadable_files(tmp_path: Path, source: type[Jsonl]) -> None:
    with pytest.raises(ConfigError, match=r"does not exist; set data\.path"):
        source(str(tmp_path / "absent")).documents(EVALUATION, 1, 0)
    file = tmp_path / "binary"
    file.write_bytes(b"text\n\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        source(str(file)).documents(EVALUATION, 1, 0)


@pytest.mark.parametrize("source", [Jsonl, Text])
def test_an_empty_file_is_refused(tmp_path: Path, source: type[Jsonl]) -> None:
    file = tmp_path / "empty"
    file.write_text("\n")
    with pytest.raises(ConfigError, match="no documents in it"):
        source(str(file)).documents(EVALUATION, 1, 0)


def test_a_tiny_file_is_evaluated_whole(tmp_path: Path) -> None:
    source = Jsonl(jsonl(tmp_path, {"text": "one"}))
    assert [document.text for document in source.documents(EVALUATION, 5, 0)] == ["one"]
    assert source.documents(TRAIN, 5, 0) == []


def test_hub_reads_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Dataset.from_dict({"text": [f"row {number}" for number in range(30)] + ["", "  "]})
    rows.to_parquet(str(tmp_path / "test.parquet"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = HubTexts(str(tmp_path))
    found = source.documents(EVALUATION, 100, 0) + source.documents(TRAIN, 100, 0)
    assert {document.text for document in found} == {f"row {number}" for number in range(30)}
    with pytest.raises(ConfigError, match="no column 'body'"):
        HubTexts(str(tmp_path), column="body").documents(EVALUATION, 1, 0)


def test_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load") as caught:
        HubTexts(str(tmp_path / "nowhere")).documents(EVALUATION, 1, 0)
    assert "\n" not in str(caught.value)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown split 'dev'"):
        Division.of([Document("a", "b")], PROMPT_SHARE, "here").part("dev", 1, 0)


def test_synthetic_source_gives_the_generator() -> None:
    source: DataSource = Synthetic("financial")
    documents = source.documents(EVALUATION, 3, 0)
    assert [document.register for document in documents] == ["financial"] * 3


@pytest.mark.parametrize("file", sorted((conf_dir() / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_configuration_builds_a_source(file: Path, tmp_path: Path) -> None:
    cfg = OmegaConf.load(file)
    for needed in OmegaConf.missing_keys(cfg):
        cfg[needed] = str(tmp_path)
    assert hasattr(build(values_of(cfg)), "documents")  # type: ignore[arg-type]


def test_real_conversations(shared_data: Path, tmp_path: Path) -> None:
    packed = shared_data / "mts-dialog" / "test1.csv.gz"
    file = tmp_path / "test1.csv"
    file.write_bytes(gzip.decompress(packed.read_bytes()))
    source = Csv(str(file), column="dialogue")
    evaluated, public = source.documents(EVALUATION, 500, 0), source.documents(TRAIN, 500, 0)
    assert len(evaluated) > 20
    assert not {document.text for document in evaluated} & {document.text for document in public}


def everything(source: Csv | Jsonl | Text) -> list[str]:
    return sorted(document.text for split in (EVALUATION, TRAIN) for document in source.documents(split, 10**6, 0))


FIELDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
"""Whatever a field may hold: line separators, quotes, form feeds, NULs, letters of every script."""


@given(texts=st.lists(FIELDS, min_size=1, max_size=8, unique=True))
@example(texts=["one\u2028two", "a\x85b", "page\x0cbreak", 'say "no", then\r\ngo', "\x1c\x1d\x1e x"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_text_comes_back_as_it_was_written(tmp_path: Path, texts: list[str]) -> None:
    plain = tmp_path / "a.csv"
    with plain.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerows([["id", "text"], *enumerate(texts)])
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    lines, array = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    array.write_text(json.dumps([{"text": text} for text in texts], indent=1, ensure_ascii=False), encoding="utf-8")
    sources = [Csv(str(plain), markup=False), Csv(str(packed), markup=False)]
    sources += [Jsonl(str(path), markup=False) for path in (lines, array)]  # type: ignore[misc]
    assert [everything(source) for source in sources] == [sorted(texts)] * 4


def test_a_table_of_tabs_is_unquoted(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('text\tid\n"Hello" she said, "now"\t1\ntwo\u2028lines\t2\n', encoding="utf-8")
    assert everything(Csv(str(file))) == ['"Hello" she said, "now"', "two\u2028lines"]


def test_a_row_that_does_not_fit_its_header_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,text\n1,good\n2,Hello, Ann\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 3: 3 fields under a header of 2; quote a field that holds a comma"):
        everything(Csv(str(file)))


def test_chats_are_read_turn_by_turn(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Of "}, {"type": "text", "text": "what?"}]
    chat = [
        {"role": "user", "content": "I am <redacted>[name] Ann</redacted>."},
        {"role": "assistant", "content": parts},
    ]
    source = Jsonl(jsonl(tmp_path, {"messages": chat}))
    (document,) = source.documents(EVALUATION, 5, 0)
    assert document.text == "user: I am Ann.\nassistant: Of what?"
    assert document.spans == (Span(11, 14, "name"),)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"messages": []}, '"messages" is no list of messages'),
        ({"messages": "hi"}, '"messages" is no list of messages'),
        ({"messages": [{"role": "user"}]}, 'a message needs a "role" and a "content" of text'),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 'a "content" of text'),
        ({"messages": [{"role": "u", "content": "a"}], "spans": [1]}, "mark secrets of messages by tags"),
        ({"messages": [{"role": "u", "content": "a"}], "text": "a"}, 'no "text"'),
        ({"text": "half \ud83d"}, r"document 'notes-1': character 6 is half a character \(a lone surrogate"),
        ("[" * 10**5, "not JSON"),
        ('{"text": ' + "9" * 5000 + "}", "not JSON"),
        ("7", 'no "text"'),
    ],
    ids=range(10),
)
def test_what_is_no_document_is_refused_in_one_line(tmp_path: Path, entry: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        everything(Jsonl(jsonl(tmp_path, entry)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_folder_of_texts_is_a_document_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"no \.txt file lies in this folder"):
        everything(Text(str(folder)))
    (folder / "one.txt").write_text("Dear Ann,\n\nhow are you?\n")
    (folder / "two.txt.gz").write_bytes(gzip.compress(b"Dear Bob,\r\nfine."))
    (folder / "notes.md").write_text("no text of ours")
    assert everything(Text(str(folder))) == ["Dear Ann,\n\nhow are you?", "Dear Bob,\nfine."]
    for source in (Csv(str(folder)), Jsonl(str(folder))):
        with pytest.raises(ConfigError, match=r"is a folder: set data\.path to a file"):
            everything(source)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    for damaged in (b"no archive", gzip.compress(b'{"text": "a"}')[:-9], gzip.compress(b"x" * 99)[:20] + b"\0" * 20):
        file.write_bytes(damaged)
        with pytest.raises(ConfigError, match="cannot be read"):
            everything(Jsonl(str(file)))


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 1.0])
def test_a_share_of_the_documents_become_prompts(tmp_path: Path, share: float) -> None:
    parts = Jsonl(jsonl(tmp_path, *({"text": f"note {i}"} for i in range(400))), prompt_share=share).division()
    assert len(parts.evaluation) + len(parts.train) == 400
    assert abs(len(parts.evaluation) / 400 - share) < 0.06
    with pytest.raises(ConfigError, match="prompt_share=0 is out of range"):
        Jsonl(jsonl(tmp_path, {"text": "a"}), prompt_share=0).division()


def test_a_larger_share_keeps_the_prompts_of_a_smaller_one(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"text": f"note {i}"} for i in range(100)))
    few, more = (set(Jsonl(path, prompt_share=share).division().evaluation) for share in (0.25, 0.5))
    assert few < more
