"""``smd verify``: what was changed in a published folder is named, also where every checksum was made to fit."""

import hashlib
import io
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.commands.cli import main as smd
from experiments.commands.publish import publish
from experiments.commands.verify import Account, RunAgain, verify
from experiments.trials.rescoring import rescored
from smd_research.core.errors import RecordError
from smd_research.metrics import summarise
from smd_research.records import Record, Status, Store, pack, without_texts
from smd_research.records.manifest import MANIFEST, checksums, manifest_bytes, read_manifest, walked

FILE = Path(__file__).resolve().parents[3] / "results" / "reference" / "records" / "real_slip.parquet"
TERMS = {"licence": "cc-by-4.0", "title": "Four cells", "about": ""}
CHECKED = RunAgain(0, 0, 0.05)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not FILE.is_file():
        pytest.skip("results/reference is not in this checkout")
    out = tmp_path_factory.mktemp("published") / "folder"
    publish(FILE, out, TERMS, "smd publish licence=cc-by-4.0")
    return out


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "folder"))


def fit(folder: Path) -> None:
    """Make the manifest fit the files, as whoever changed them can."""
    files, _ = walked(folder)
    told = checksums({name: (folder / name).read_bytes() for name in files})
    (folder / MANIFEST).write_bytes(manifest_bytes(replace(read_manifest(folder), files=told)))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "records" / FILE.name).to_pylist())


def put(folder: Path, rows: list[dict[str, Any]], *, fitting: bool = True) -> None:
    """Write records; the checksums that each holds of itself are made to fit."""
    for row in rows if fitting else ():
        environment = json.loads(row["environment.json"])
        held = ("config.yaml", "metrics.json", "items.parquet")
        environment["files"] = {name: hashlib.sha256(row[name]).hexdigest() for name in held}
        row["environment.json"] = json.dumps(environment).encode()
    path = folder / "records" / FILE.name
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)


def edit_metric(folder: Path, *, fitting: bool = True) -> None:
    rows = rows_of(folder)
    document = json.loads(rows[0]["metrics.json"])
    document["metrics"]["kl"]["mean"] = document["metrics"]["kl"]["low"]
    rows[0]["metrics.json"] = json.dumps(document).encode()
    put(folder, rows, fitting=fitting)


def break_items(folder: Path) -> None:
    """Lengths with gaps, which no reader expects."""
    rows = rows_of(folder)
    items = pd.read_parquet(io.BytesIO(rows[0]["items.parquet"])).head(2)
    buffer = io.BytesIO()
    items.assign(length=pd.array([1, None], dtype="Int64")).to_parquet(buffer, index=False)
    rows[0]["items.parquet"] = buffer.getvalue()
    put(folder, rows)


def edit_item(folder: Path) -> None:
    rows = rows_of(folder)
    items = pd.read_parquet(io.BytesIO(rows[0]["items.parquet"]))
    items.loc[0, "kl"] += 0.25
    buffer = io.BytesIO()
    items.to_parquet(buffer, index=False)
    rows[0]["items.parquet"] = buffer.getvalue()
    put(folder, rows)


def swap_records(folder: Path) -> None:
    """What one cell gave under the name of another."""
    rows = rows_of(folder)
    rows[0]["folder"], rows[1]["folder"] = rows[1]["folder"], rows[0]["folder"]
    put(folder, rows)


def swap_configurations(folder: Path) -> None:
    """The cell that a record says it is of, changed without its id."""
    rows = rows_of(folder)
    document = json.loads(rows[0]["metrics.json"])
    document["cell"]["n_prompts"] += 1
    rows[0]["metrics.json"] = json.dumps(document).encode()
    put(folder, rows)


def swap_config(folder: Path) -> None:
    rows = rows_of(folder)
    rows[0]["config.yaml"] = rows[1]["config.yaml"]
    put(folder, rows)


def change(name: str, *pair: str) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        text = (folder / name).read_text()
        assert pair[0] in text
        (folder / name).write_text(text.replace(*pair, 1))

    return changed


def change_table(folder: Path) -> None:
    table = pd.read_csv(folder / "tables" / "real_slip.csv", dtype=str, keep_default_na=False)
    column = next(name for name in table if name.endswith(" low")).removesuffix(" low")
    place = next(i for i, value in enumerate(table[column]) if value)
    table.loc[place, column] = "0.123"
    table.to_csv(folder / "tables" / "real_slip.csv", index=False)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def add(name: str, content: bytes = b"import os\n") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def test_what_was_published_holds(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["verify", str(published)]) == 0
    *_, counted, made, last = capsys.readouterr().out.splitlines()
    assert counted == "records: 4 read, 4 scored again from their items"
    assert made.startswith("made again of them: 1 tables")
    assert last == "all holds"


@pytest.mark.parametrize("fitting", [False, True], ids=["", "manifest made to fit"])
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (edit_metric, ["kl is", "its items give"]),
        (edit_item, ["kl is", "its items give"]),
        (break_items, ["its items cannot be scored"]),
        (swap_records, ["another cell than its name says"]),
        (swap_configurations, ["the cell has another id than it says"]),
        (swap_config, ["config.yaml is that of another cell"]),
        (change_table, ["tables/real_slip.csv: row 1", "column '", "'0.123', its records make"]),
        (change("README.md", "Cells: 4", "Cells: 9"), ["README.md: line", "'Cells: 9 (4 ok).', its records make"]),
        (change("board/index.html", "<title", "<script>1</script><title"), ["board/index.html: another page"]),
        (change("environment.json", "3.11", "3.12"), ["environment.json: line"]),
        (remove("tables/real_slip.csv"), ["tables/real_slip.csv: missing"]),
        (remove("records/real_slip.parquet"), ["real_slip"]),
        (add("board/more.py"), ["board/more.py: "]),
        (add("records/more.parquet"), ["records/more.parquet: "]),
        (add("metrics/real_slip.parquet"), ["metrics/real_slip.parquet: other figures than its records hold"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_changed_is_named(
    folder: Path, tamper: Callable[[Path], None], said: list[str], fitting: bool
) -> None:
    tamper(folder)
    if fitting:
        fit(folder)
    findings = verify(folder, CHECKED).findings
    assert all("\n" not in one for one in findings)
    assert any(all(word in one for word in said) for one in findings), findings
    assert fitting or any("manifest" in one or one.endswith(": missing") for one in findings)


def test_a_record_that_does_not_fit_its_own_checksums_is_named(folder: Path) -> None:
    edit_metric(folder, fitting=False)
    fit(folder)
    said = [one for one in verify(folder, CHECKED).findings if "does not match its checksum" in one]
    assert [one.partition(": its record ")[0] for one in said] == [f"records/{FILE.name}"]


def test_a_changed_number_of_the_page_is_named_by_row_and_column(folder: Path) -> None:
    text = (folder / "tables" / "real_slip.md").read_text().splitlines()
    place = next(i for i, line in enumerate(text) if line.startswith("| ---")) + 2
    cells = text[place].split(" | ")
    cells[1] = "0 %"
    text[place] = " | ".join(cells)
    (folder / "tables" / "real_slip.md").write_text("\n".join(text) + "\n")
    fit(folder)
    (finding,) = verify(folder, CHECKED).findings
    assert finding.startswith("tables/real_slip.md: row 2 (")
    assert "column '" in finding


def test_nothing_outside_of_the_folder_is_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (folder / "tables" / "link").symlink_to(tmp_path / "secret")
    (folder / "elsewhere").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    document = json.loads((folder / MANIFEST).read_text())
    document["files"] |= dict.fromkeys(("../secret", "/etc/passwd", "tables/link"), "0" * 64)
    (folder / MANIFEST).write_text(json.dumps(document))
    findings = verify(folder, CHECKED).findings
    for name in ("tables/link", "elsewhere", "pipe"):
        assert f"{name}: no file but a link or a device; nothing more is read" in findings
    for name in ("../secret", "/etc/passwd"):
        assert f"{name}: the manifest names a place outside of the folder" in findings


def test_a_name_that_would_command_a_terminal_is_shown_escaped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a\x1b[2J\nfinding: none\udc80").write_text("")
    assert smd(["verify", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "finding: a\\x1b[2J\\nfinding: none\\udc80: not in the manifest\n" in shown


def test_nothing_in_the_folder_is_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins" / "evil.py").write_text("open('imported', 'w')\n")
    for place in (folder, folder / "board"):
        monkeypatch.chdir(place)
        assert smd(["verify", str(folder)]) == 2
    monkeypatch.chdir(folder.parent)
    assert smd(["verify", "folder"]) == 1
    assert not list(folder.parent.rglob("imported"))


def test_a_folder_by_the_name_of_a_package_is_not_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder.rename(folder.parent / "hydra_plugins")
    (package / "evil.py").write_text("open('imported', 'w')\n")
    monkeypatch.chdir(package.parent)
    searched: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr("experiments.commands.verify.verify", lambda *_: searched.extend(sys.path) or Account())
        assert smd(["verify", "hydra_plugins"]) == 0
    assert searched
    assert not {"", str(package.parent)} & set(searched)
    for place in ("", str(package.parent)):
        with monkeypatch.context() as patched:
            patched.syspath_prepend(place)
            assert smd(["verify", "hydra_plugins"]) == 2
    assert not list(package.parent.rglob("imported"))


@pytest.mark.skipif(sys.platform != "linux", reason="the system keeps no limit")
@pytest.mark.parametrize("name", ["records/more.parquet", "metrics/real_slip.parquet"])
def test_a_small_file_that_says_it_is_a_large_one_is_a_finding(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One text of a megabyte that stands in thousands of rows takes a few hundred bytes."""
    schema, rows = pq.read_schema(folder / ("records/" + FILE.name if name.startswith("rec") else name)), 4000
    texts = {"items.parquet": b"0" * 2**20, "metric": "0" * 2**20}
    held = [
        pa.array([texts.get(one.name, "0")]).cast(one.type) if _is_text(one.type) else pa.nulls(1, one.type)
        for one in schema
    ]
    places = pa.array([0] * rows, pa.int32())
    columns = [pa.DictionaryArray.from_arrays(places, one) if _is_text(one.type) else one.take(places) for one in held]
    pq.write_table(pa.table(columns, schema.names), folder / name, compression="zstd", store_schema=False)
    assert (folder / name).stat().st_size < 2**16
    fit(folder)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr("experiments.commands.verify._MEMORY", 2**29)
    assert any(name in one and "\n" not in one for one in verify(folder, CHECKED).findings)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def test_a_file_that_cannot_be_read_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("smd_research.records.manifest._digest", refuse)
    assert smd(["verify", str(folder)]) == 2
    assert capsys.readouterr().err == f"error: cannot read {folder}/README.md: Permission denied\n"


def test_what_git_and_the_hub_leave_beside_the_files_is_no_finding(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x").write_text("")
    assert verify(folder, CHECKED).findings == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 2}', b"\xff", b"[" * 100_000])
def test_another_manifest_is_no_published_folder(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(RecordError, match="is no manifest"):
        verify(folder, CHECKED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "one folder is needed, not none"),
        (["a", "b"], "one folder is needed, not a, b"),
        (["nothing"], "nothing is no folder"),
        (["~nobody-of-this-name/x"], "~nobody-of-this-name/x is no folder"),
        (["x" * 300], "File name too long"),
        (["results"], "holds no manifest.json: it is no folder that 'smd publish' made"),
        (["results", "sample=many"], "sample=many: a count is needed"),
        (["results", "sample=-1"], "sample=-1: a count is needed"),
        (["results", "sample_seed=x"], "sample_seed=x: a count is needed"),
        (["results", "tolerance=2"], "tolerance=2 is out of range"),
        (["results", "sampel=2"], "one folder is needed, not results, sampel=2"),
        (["."], "start it outside of the folder"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line(
    words: list[str], said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / "results").mkdir()
    assert smd(["verify", *words]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert shown.out == ""


# -- cells run again ---------------------------------------------------------------------------------------------------

CELL = ["defense=none", "attack=random", "n_prompts=2", "prompt_tokens=6", "max_new_tokens=1"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measured")
    assert smd(["run", *CELL, f"results_dir={place}"]) == 0
    return place


def forged(measured: Path, place: Path) -> Path:
    """A folder whose every number and checksum fits an answer that no attack gave."""
    store = Store(measured)
    (record,) = store.records()
    items = record.items.copy()
    items["guess_ids"], items["guess_tokens"] = items["truth_ids"], items["truth_tokens"]
    scores = {"top5_accuracy": 1.0, "rouge_l": 1.0, "span_similarity": 1.0}
    items = items.assign(**{name: value for name, value in scores.items() if name in items})
    Store(place / "results").write(rescored(replace(record, items=items)))
    publish(place / "results", place / "out", TERMS, "smd publish")
    return place / "out"


def test_a_cell_run_again_gives_what_it_gave(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(measured, tmp_path / "out", TERMS, "smd publish")
    assert smd(["verify", str(tmp_path / "out"), "sample=1"]) == 0
    shown = capsys.readouterr().out
    assert "cells: 1 of 1 run again (sample_seed=" in shown
    assert ": holds (the same lock)" in shown


def test_scores_that_tokens_contradict_are_named(measured: Path, tmp_path: Path) -> None:
    (record,) = Store(measured).records()
    items = record.items.assign(token_accuracy=1.0)
    metrics = {**record.metrics, "token_accuracy": summarise("token_accuracy", [1.0, 1.0])}
    Store(tmp_path / "results").write(replace(record, items=items, metrics=metrics))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    findings = verify(tmp_path / "out", CHECKED).findings
    assert any("token_accuracy is 1 (" in one for one in findings)
    assert any("token_accuracy is 1.0, its tokens give 0" in one for one in findings)


def test_means_of_records_without_texts_are_compared(measured: Path, tmp_path: Path) -> None:
    (record,) = Store(measured).records()
    quiet = without_texts(record)
    for name, metrics in (("as it was", {}), ("changed", {"token_accuracy": summarise("token_accuracy", [1.0, 1.0])})):
        Store(tmp_path / name).write(replace(quiet, metrics={**quiet.metrics, **metrics}))
        publish(tmp_path / name, tmp_path / f"{name} out", TERMS, "smd publish")
    assert verify(tmp_path / "as it was out", CHECKED).findings == []
    (finding,) = verify(tmp_path / "changed out", CHECKED).findings
    assert finding.endswith("token_accuracy is 1, its items give 0")


def test_means_of_records_without_texts_are_of_all_their_prompts(measured: Path, tmp_path: Path) -> None:
    (record,) = Store(measured).records()
    quiet = without_texts(record)
    forged = replace(summarise("token_accuracy", [1.0, 1.0]), n=3)  # of which nobody can take the mean again
    Store(tmp_path / "results").write(replace(quiet, metrics={**quiet.metrics, "token_accuracy": forged}))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    (finding,) = verify(tmp_path / "out", CHECKED).findings
    assert finding.endswith("token_accuracy is of 3 prompts, its items hold 2")


def test_scores_without_the_control_that_has_them_made_again_are_named(measured: Path, tmp_path: Path) -> None:
    (record,) = Store(measured).records()
    kept = [name for name in record.items if not str(name).startswith("control_")]
    items = record.items[kept].assign(token_accuracy=1.0)
    metrics = {name: one for name, one in record.metrics.items() if not name.startswith("control_")}
    metrics["token_accuracy"] = summarise("token_accuracy", [1.0, 1.0])
    Store(tmp_path / "results").write(replace(record, items=items, metrics=metrics))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    (finding,) = verify(tmp_path / "out", CHECKED).findings
    assert finding.endswith("its items hold guesses without a control, so that no token decides their scores")


def test_what_fits_in_all_else_is_caught_by_running_it_again(measured: Path, tmp_path: Path) -> None:
    folder = forged(measured, tmp_path)
    assert verify(folder, CHECKED).findings == [], "nothing in the folder contradicts it"


def test_forged_guesses_are_named_when_their_cell_is_run_again(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(["verify", str(forged(measured, tmp_path)), "sample=1"]) == 1
    shown = capsys.readouterr().out
    assert "its guess is another one" in shown
    assert "token_accuracy: 1, run again 0" in shown
    assert ": differs (the same lock)" in shown


def test_elsewhere_means_are_held_against_the_tolerance(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "results")
    (record,) = Store(measured).records()
    store.write(replace(record, environment={**record.environment, "python": "3.9.0"}))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    assert smd(["verify", str(tmp_path / "out"), "sample=1"]) == 0
    assert "holds (another lock or processor, means within 0.05)" in capsys.readouterr().out


def test_a_cell_that_cannot_be_run_is_skipped_and_counted(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = Store(measured).records()
    told = replace(record.cell, command="smd run defense=none attack=random model=hub model.name=evil/model")
    Store(tmp_path / "results").write(replace(record, cell=told))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    assert smd(["verify", str(tmp_path / "out"), "sample=1"]) == 0
    shown = capsys.readouterr().out
    assert "cells: 0 of 1 run again" in shown
    assert "skipped: 'model=hub' names what does not come with the laboratory" in shown


def test_a_failure_that_does_not_fail_here_is_a_finding(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = Store(measured).records()
    Store(tmp_path / "results").write(Record(Status.FAILED, record.cell, "no room"))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    assert smd(["verify", str(tmp_path / "out"), "sample=1"]) == 1
    assert "its status is failed, run again it is ok" in capsys.readouterr().out


def test_what_does_not_apply_here_either_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["defense=none", "attack=partial_attention_inversion", *CELL[2:]]
    assert smd(["run", *words, f"results_dir={tmp_path / 'results'}"]) == 1
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    capsys.readouterr()
    assert smd(["verify", str(tmp_path / "out"), "sample=1"]) == 0
    assert ": holds (it is n/a here)" in capsys.readouterr().out


def test_a_command_that_makes_another_cell_is_a_finding(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = Store(measured).records()
    told = replace(record.cell, command=record.cell.command.replace("n_prompts=2", "n_prompts=1"))
    Store(tmp_path / "results").write(replace(record, cell=told))
    publish(tmp_path / "results", tmp_path / "out", TERMS, "smd publish")
    assert smd(["verify", str(tmp_path / "out"), "sample=1"]) == 1
    assert "its command makes cell " in capsys.readouterr().out


def test_records_of_a_table_are_packed_beside_those_of_none(measured: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(measured, tmp_path / "results"))
    pack(Store(place).paths(), place / "tables" / "records" / "mine.parquet")
    publish(place, tmp_path / "out", TERMS, "smd publish")
    assert [path.name for path in (tmp_path / "out" / "records").iterdir()] == ["mine.parquet"]
    assert verify(tmp_path / "out", CHECKED).findings == []
