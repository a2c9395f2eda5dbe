"""Documents from files and data sets, and what a user reads when a file is wrong."""

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset
from hydra.utils import instantiate
from omegaconf import OmegaConf

from smd_research.core.errors import ConfigError
from smd_research.core.paths import conf_dir
from smd_research.data.prompts import Span
from smd_research.data.sources import EVALUATION, TRAIN, Csv, DataSource, HubTexts, Jsonl, Synthetic, Text, select


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
        ('{"text": "  "}', "line 2: the text is empty"),
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
    assert {document.text for document in Csv(str(file), "note").documents(EVALUATION, 9, 0)} <= {"x", "y", "z"}
    with pytest.raises(ConfigError, match=r"no column 'body'; set data\.column to one of id, text, note"):
        Csv(str(file), "body").documents(EVALUATION, 1, 0)
    file.write_text('text\nfirst\n""\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 3: the text is empty"):
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
        select([], "dev", 1, 0, "here")


def test_synthetic_source_gives_the_generator() -> None:
    source: DataSource = Synthetic("financial")
    documents = source.documents(EVALUATION, 3, 0)
    assert [document.register for document in documents] == ["financial"] * 3


@pytest.mark.parametrize("file", sorted((conf_dir() / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_configuration_builds_a_source(file: Path, tmp_path: Path) -> None:
    cfg = OmegaConf.load(file)
    for needed in OmegaConf.missing_keys(cfg):
        cfg[needed] = str(tmp_path)
    assert hasattr(instantiate(cfg), "documents")


def test_real_conversations(shared_data: Path, tmp_path: Path) -> None:
    packed = shared_data / "mts-dialog" / "test1.csv.gz"
    file = tmp_path / "test1.csv"
    file.write_bytes(gzip.decompress(packed.read_bytes()))
    source = Csv(str(file), column="dialogue")
    evaluated, public = source.documents(EVALUATION, 500, 0), source.documents(TRAIN, 500, 0)
    assert len(evaluated) > 20
    assert not {document.text for document in evaluated} & {document.text for document in public}
