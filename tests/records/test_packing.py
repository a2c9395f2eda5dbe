from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_records import make_cell, make_record

from smd_research.core.errors import RecordError
from smd_research.records import Status, Store, load, pack, packed, read_record, unpack
from smd_research.records.packing import record_at

CELLS = [make_cell(seed=seed) for seed in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "here")
    for cell in CELLS[:2]:
        store.write(make_record(cell, accuracy=0.25))
    store.write(make_record(CELLS[2], status=Status.FAILED, reason="no room"))
    return store


@pytest.fixture
def file(store: Store, tmp_path: Path) -> Path:
    return pack(store.paths(), tmp_path / "records" / "table.parquet")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_unpacked_is_what_was_packed_byte_for_byte(store: Store, file: Path, tmp_path: Path) -> None:
    there = Store(tmp_path / "there")
    written, kept = unpack(file, there)
    assert ([path.name for path in written], kept) == ([path.name for path in store.paths()], [])
    for one, other in zip(store.paths(), there.paths(), strict=True):
        assert contents(one) == contents(other)


def test_a_packed_file_is_loaded_as_a_folder_is(store: Store, file: Path) -> None:
    rows = [frame.drop(columns="path") for frame in (load(store.results_dir), load(file))]
    pd.testing.assert_frame_equal(*rows)
    assert [record.cell.id for record in packed(file)] == [folder.name[-16:] for folder in store.paths()]


def test_a_record_is_read_where_a_frame_says_that_it_lies(store: Store, file: Path) -> None:
    frame = load(file)
    for cell in CELLS:
        lying, held = store.lookup(cell), read_record(frame, cell.id)
        assert lying is not None
        assert (held.path, held.metrics) == (file / f"{cell.readable}-{cell.id}", lying.metrics)
        pd.testing.assert_frame_equal(held.items, lying.items)
    pack(store.paths()[:1], file)
    with pytest.raises(RecordError, match=r"holds no record .*: it was packed anew"):
        record_at(file / store.paths()[1].name)


def test_a_name_in_a_packed_file_leads_nowhere_else(store: Store, file: Path) -> None:
    name = store.paths()[1].name
    strange = changed(file, folder=f"../../{name}")
    assert strange / name in [record.path for record in packed(strange)]


def test_packing_again_gives_the_same_file(store: Store, file: Path, tmp_path: Path) -> None:
    again = pack(reversed(store.paths()), tmp_path / "again.parquet")  # type: ignore[arg-type]
    assert again.read_bytes() == file.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing is left beside it"


def test_a_record_that_is_there_is_kept(store: Store, file: Path) -> None:
    newer = store.write(make_record(CELLS[0], accuracy=0.75))
    written, kept = unpack(file, store)
    assert written == []
    assert len(kept) == 3
    found = store.lookup(CELLS[0])
    assert found is not None
    assert found.metrics == newer.metrics


def changed(file: Path, **columns: bytes | str) -> Path:
    rows = pq.read_table(file).to_pylist()
    rows[1] |= {name.replace("__", "."): value for name, value in columns.items()}
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)
    return file


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"metrics__json": b"{}"}, "metrics.json does not match its checksum"),
        ({"folder": "../../elsewhere"}, "another cell than its name says"),
        ({"environment__json": b"\xff"}, "environment.json"),
    ],
)
def test_one_bad_record_is_named_and_nothing_is_unpacked(
    file: Path, tmp_path: Path, columns: dict[str, bytes], message: str
) -> None:
    there = Store(tmp_path / "there")
    with pytest.raises(RecordError, match=message):
        unpack(changed(file, **columns), there)
    assert there.paths() == []
    assert not (tmp_path / "elsewhere").exists()


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(RecordError, match="cannot read"):
        list(packed(path))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(RecordError, match="no file of packed records"):
        list(packed(path))
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(RecordError, match="its columns are"):
        list(packed(path))
    with pytest.raises(RecordError, match=r"cannot pack .*absent"):
        pack([tmp_path / "absent"], tmp_path / "new" / "y.parquet")
    assert not (tmp_path / "new" / "y.parquet").exists()
