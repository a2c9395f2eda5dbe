"""``smd publish``: the folder is one that the hub's own readers understand, and nothing in it names a place of ours."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from datasets import load_dataset
from datasets.utils.metadata import MetadataConfigs
from made_records import make_cell, make_record

from experiments.commands.cli import main as smd
from smd_research.records import Store, load, pack, packed, without_texts
from smd_research.records.manifest import MANIFEST, checksums, read_manifest, walked

WORDS = ["licence=cc-by-4.0", "title=Two cells"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    for seed in (1, 2):
        store.write(make_record(make_cell(seed=seed, command=f"smd run seed={seed} results_dir={tmp_path}")))
    pack(store.paths()[:1], store.results_dir / "tables" / "records" / "mine.parquet")
    return store.results_dir


@pytest.fixture
def published(results: Path) -> Path:
    assert smd(["publish", f"results_dir={results}", *WORDS]) == 0
    return results / "published"


def test_the_hub_reads_licence_title_tags_and_configurations(published: Path) -> None:
    card = huggingface_hub.DatasetCard.load(published / "README.md")
    told = card.data.to_dict()
    assert (told["license"], told["pretty_name"]) == ("cc-by-4.0", "Two cells")
    assert "smd-research" in told["tags"]
    assert told["size_categories"] == ["n<1K"]
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    assert {name: one["data_files"] for name, one in configs.items()} == {
        "mine": "metrics/mine.parquet",
        "cells": "metrics/cells.parquet",
    }


@pytest.mark.parametrize("name", ["mine", "cells"])
def test_datasets_loads_each_configuration_offline(published: Path, name: str, tmp_path: Path) -> None:
    rows = load_dataset(str(published), name, split="train", cache_dir=str(tmp_path / "cache"))
    known = load(published / "records" / f"{name}.parquet")
    assert list(rows["metric"]) == list(known["metric"])
    assert list(rows["mean"]) == list(known["mean"])
    assert list(rows["attack.steps"]) == [32, 32]


def test_every_file_is_in_the_manifest(published: Path) -> None:
    files, odd = walked(published)
    told = read_manifest(published)
    assert odd == []
    assert told.files == checksums({name: (published / name).read_bytes() for name in files})
    assert {"README.md", "environment.json", "board/index.html", "records/cells.parquet"} <= set(files)
    assert json.loads((published / "environment.json").read_text())[0]["records"] == 2
    assert told.command == "smd publish licence=cc-by-4.0 'title=Two cells'"


def test_no_folder_of_ours_is_named(published: Path, tmp_path: Path) -> None:
    for path in published.rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
    frame = load(published / "records" / "cells.parquet")
    assert set(frame["command"]) == {"smd run seed=2"}


def test_no_word_of_the_command_names_a_folder_of_ours(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [f"out={out}", f"hydra.run.dir={tmp_path}", f"+hydra.job.env_set.HOME={tmp_path}", "-cd", str(tmp_path)]
    assert smd(["publish", f"results_dir={results}", *WORDS, *words]) == 0
    assert read_manifest(out).command == "smd publish licence=cc-by-4.0 'title=Two cells'"


def test_publishing_again_gives_the_same_folder(results: Path, published: Path) -> None:
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    assert smd(["publish", f"results_dir={results}", *WORDS]) == 0
    assert {path: path.read_bytes() for path in published.rglob("*") if path.is_file()} == before


def test_what_the_makers_say_stands_on_the_page(results: Path, tmp_path: Path) -> None:
    (tmp_path / "about.md").write_text("We tried *two* cells.\n")
    assert smd(["publish", f"results_dir={results}", *WORDS, f"about={tmp_path}/about.md"]) == 0
    assert "\n\nWe tried *two* cells.\n\n" in (results / "published" / "README.md").read_text()


def test_texts_taken_out_since_a_table_was_packed_are_not_published(results: Path) -> None:
    store = Store(results)
    for record in list(store.records()):
        store.write(without_texts(record))
    assert smd(["publish", f"results_dir={results}", *WORDS]) == 0
    for name in ("mine", "cells"):
        assert not any(record.texts for record in packed(results / "published" / "records" / f"{name}.parquet"))


def test_texts_that_are_published_are_counted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smd(["publish", f"results_dir={results}", *WORDS])
    assert "2 records hold texts (prompts, secrets, guesses), which are published with them" in capsys.readouterr().err


# -- the hub -----------------------------------------------------------------------------------------------------------


def test_the_folder_takes_the_place_of_what_the_data_set_held(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def create_repo(self: object, repo: str, **told: Any) -> str:
        asked["create"] = (repo, told)
        return f"https://hub.example/datasets/{repo}"

    def upload_folder(self: object, **told: Any) -> None:
        asked["upload"] = told

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    assert smd(["publish", f"results_dir={results}", *WORDS, "repo=lab/two", "dry_run=true"]) == 0
    assert asked == {}
    assert smd(["publish", f"results_dir={results}", *WORDS, "repo=lab/two", "private=true"]) == 0
    assert asked["create"] == ("lab/two", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert asked["upload"]["folder_path"] == results / "published"
    assert (asked["upload"]["repo_id"], asked["upload"]["delete_patterns"]) == ("lab/two", "*")
    assert capsys.readouterr().out.endswith("page: https://hub.example/datasets/lab/two\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (huggingface_hub.errors.OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE is set"),
        (huggingface_hub.errors.LocalTokenNotFoundError("no"), "nobody is logged in: hf auth login"),
        (ConnectionError("no\nroute"), "ConnectionError: no route"),
    ],
)
def test_where_no_hub_is_reached_one_line_says_so_and_the_folder_stays(
    error: Exception, said: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: object, *words: Any, **told: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    assert smd(["publish", f"results_dir={results}", *WORDS, "repo=lab/two"]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: nothing was sent to lab/two ({said}); the folder stays in ")
    assert (results / "published" / "README.md").is_file()


@pytest.mark.parametrize("name", ["thesis", "board/thesis", ".git/config"])
def test_what_others_put_into_a_published_folder_is_not_lost(
    name: str, results: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published / name).parent.mkdir(exist_ok=True)
    (published / name).write_text("mine")
    assert smd(["publish", f"results_dir={results}", *WORDS]) == 2
    assert f"holds {name.partition('/')[0]}" in capsys.readouterr().err.splitlines()[-1]
    assert (published / name).read_text() == "mine"


def test_a_folder_with_another_manifest_is_not_replaced(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site := tmp_path / "site").mkdir()
    (site / MANIFEST).write_text('{"name": "an app of the web"}')
    assert smd(["publish", f"results_dir={results}", *WORDS, f"out={site}"]) == 2
    assert "is no manifest" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in site.iterdir()] == [MANIFEST]


def test_bad_input_is_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").write_text("")
    for words, said in (
        ([], "this command needs licence=cc-by-4.0"),
        (["licence=CC BY"], "licence=CC BY is no licence"),
        ([*WORDS, "title="], "title= needs a line of text"),
        ([*WORDS, "repo=two"], "repo=two is no data set on the hub: write repo=ORG/NAME"),
        ([*WORDS, f"about={tmp_path}/none.md"], "cannot be read: give a Markdown file"),
        ([*WORDS, f"results_dir={tmp_path}/nothing"], "holds no records"),
        ([*WORDS, f"out={tmp_path}/full"], "holds other things than a published folder"),
        ([*WORDS, f"out={tmp_path}/full/thesis"], "is a file"),
        ([*WORDS, f"out={tmp_path}/full/thesis/in"], "cannot write"),
        ([*WORDS, "licnce=mit"], "unknown key 'licnce'"),
    ):
        assert smd(["publish", f"results_dir={results}", *words]) == 2, words
        shown = capsys.readouterr()
        line = shown.err.splitlines()[-1]
        assert line.startswith("error: ")
        assert said in line
        assert shown.out == ""
    assert (tmp_path / "full" / "thesis").is_file()
