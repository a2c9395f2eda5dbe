"""A bad record is refused for what is wrong with it, not by luck for another fault that follows from its own."""

import re
from pathlib import Path

import pytest
from made_records import make_record
from test_crafted import BAD

from smd_research.core.errors import ConfigError
from smd_research.records import Store
from smd_research.records.schema import FILES, SchemaError, parsed

REASONS = {
    "a copy beside it": "it holds another cell than its name says",
    "a name with a line break": "it holds another cell than its name says",
    "a name of lone bytes": "it holds another cell than its name says",
    "utf-16": "metrics.json: 'utf-8' codec can't decode",
    "a list": "metrics.json is no mapping",
    "deep": "metrics.json: maximum recursion depth",
    "a key twice": "metrics.json: a key stands twice",
    "NaN": "metrics.json: a number is not finite",
    "an endless number": "metrics.json: a number is not finite",
    "a number of 400 digits": "metrics.json: a number is too large",
    "half a character": "metrics.json: 'utf-8' codec can't encode",
    "a status nobody writes": "metrics.json: status missing is never written",
    "an unknown status": "metrics.json: its status is unknown",
    "a reason that is a number": "metrics.json: its reason is no text",
    "metrics in a list": "metrics.json: metrics is no mapping",
    "an estimate that is a number": "metrics.json: kl is no estimate",
    "a mean in words": "metrics.json: token_accuracy is no estimate",
    "a mean that is true": "metrics.json: token_accuracy is no estimate",
    "an interval backwards": "metrics.json: the interval of token_accuracy ends before it begins",
    "half a prompt": "metrics.json: token_accuracy is no estimate",
    "minus one prompt": "metrics.json: token_accuracy is no estimate",
    "no prompt count": "metrics.json: kl is no estimate",
    "a cell in a list": "metrics.json: its cell is no mapping",
    "a seed in words": "metrics.json: the cell's seed is no whole number",
    "prompts in a list": "metrics.json: the cell's n_prompts is no count",
    "an attack in words": "metrics.json: the cell's attack is no mapping",
    "no defense": "a cell needs defense",
    "a task in words": "metrics.json: the cell's task is no mapping",
    "markup for a name": "metrics.json: the cell's defense has no proper name",
    "versions in words": "metrics.json: odd versions",
    "another seed": "metrics.json: the cell has another id than it says",
    "another id": "metrics.json: the cell has another id than it says",
    "an environment in a list": "environment.json is no mapping",
    "no checksums": "environment.json: checksums are missing",
    "parameters in a list": "environment.json: parameters is no mapping",
    "no Parquet": "items.parquet is not a Parquet file",
    "no names of prompts": "items.parquet names no prompts",
    "numbers for names of prompts": "items.parquet: prompt_id holds something else",
    "a metric in words": "items.parquet: token_accuracy holds something else",
    "spans that are numbers": "items.parquet: spans holds something else",
    "texts that are numbers": "items.parquet: truth_tokens holds something else",
    "half Parquet": "items.parquet is not a Parquet file",
    "a name missing": "items.parquet: prompt_id has gaps",
    "guesses of another length": "items.parquet: guess_ids does not fit truth_ids",
    "ids with gaps": "items.parquet: truth_ids has gaps",
}
"""What is said of each; files that cannot be read at all are none of the schema's."""


def test_every_bad_record_whose_files_can_be_read_is_looked_at() -> None:
    assert set(BAD) - set(REASONS) == {"empty folder", "a pipe for a file", "a folder for a file"}


@pytest.mark.parametrize("name", REASONS)
def test_a_bad_record_is_refused_for_what_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    (written,) = store.cells.iterdir()
    BAD[name](written)
    (folder,) = store.cells.iterdir()
    contents = {file: (folder / file).read_bytes() for file in (*FILES, "environment.json")}
    with pytest.raises((SchemaError, ConfigError), match=f"^{re.escape(REASONS[name])}"):
        parsed(folder, contents)


def test_a_good_record_is_read_as_it_was(tmp_path: Path) -> None:
    record = make_record()
    folder = Store(tmp_path).write(record).path
    assert folder is not None
    found = parsed(folder, {file: (folder / file).read_bytes() for file in (*FILES, "environment.json")})
    assert (found.cell.id, found.status, dict(found.metrics)) == (record.cell.id, record.status, dict(record.metrics))
    assert list(found.items["prompt_id"]) == list(record.items["prompt_id"])
