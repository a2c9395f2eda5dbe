"""The page of a folder of results on the Hugging Face hub: a dataset card, ``README.md`` with its YAML beginning.

The hub, and ``datasets.load_dataset`` of the folder, read in it which file each configuration is made of.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from smd_research.core.cell import component_name
from smd_research.records import Record
from smd_research.records.manifest import Manifest
from smd_research.reports.board import BoardTable
from smd_research.reports.board.tables import table_head

TAGS = ("smd-research", "privacy", "language-models", "reconstruction-attacks", "private-inference")

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MORE = "1M<n<10M"


def dataset_page(
    told: Manifest,
    records: Mapping[str, Sequence[Record]],
    metrics: Mapping[str, pd.DataFrame],
    tables: Sequence[BoardTable],
    environments: Sequence[Mapping[str, Any]],
) -> str:
    """The text of the page.

    Args:
        told: licence, title and what the makers say.
        records: of each packed file.
        metrics: the frame of each, as it is published.
        tables: that were made of the records and of benches.
        environments: where the records were made, see :func:`environments_of`.
    """
    parts = [
        f"---\n{yaml.safe_dump(_front(told, metrics), sort_keys=False, allow_unicode=True)}---",
        f"# {told.title}",
        *([told.about.strip()] if told.about.strip() else []),
        _contents(records),
        *([_tables(tables)] if tables else []),
        _reading(metrics),
        _CHECKING,
        _environments(environments),
        f"Licence: {told.licence}. Made by {told.made_by}: `{told.command}`",
    ]
    return "\n\n".join(parts) + "\n"


def environments_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Where records were made, each environment once with how many records it made, the most first."""
    counted: Counter[str] = Counter()
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        told = {key: record.environment.get(key) for key in ("packages", "python", "platform", "device", "accelerator")}
        told["processor"] = (record.environment.get("cpu") or {}).get("name")
        key = repr(sorted(told.items()))
        counted[key] += 1
        found[key] = {**told, "packages": told["packages"] or {}}
    return [{**found[key], "records": count} for key, count in sorted(counted.items(), key=lambda one: (-one[1], one))]


def _front(told: Manifest, metrics: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    rows = sum(map(len, metrics.values()))
    return {
        "license": told.licence,
        "pretty_name": told.title,
        "tags": list(TAGS),
        "size_categories": [next((name for limit, name in _SIZES if rows < limit), _MORE)],
        "configs": [{"config_name": name, "data_files": f"metrics/{name}.parquet"} for name in metrics],
    }


def _contents(records: Mapping[str, Sequence[Record]]) -> str:
    cells = {record.cell.id: record for found in records.values() for record in found}
    statuses = Counter(str(record.status) for record in cells.values())
    counted = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())) or "none"
    lines = [f"Cells: {len(cells)} ({counted})."]
    for part in ("defense", "attack", "model"):
        names = sorted({component_name(getattr(record.cell, part)) for record in cells.values()})
        lines.append(f"- {part}: {', '.join(f'`{name}`' for name in names)}")
    texts = sum(record.texts and not record.items.empty for record in cells.values())
    lines.append(f"- records that hold texts (prompts, secrets, guesses): {texts}")
    return "\n".join([lines[0], "", *lines[1:]])


def _tables(tables: Sequence[BoardTable]) -> str:
    lines = ["| table | what it shows | claims |", "| --- | --- | --- |"]
    for one in tables:
        head = table_head(one)
        claims = ", ".join(f"{count} {verdict}" for verdict, count in head["verdicts"].items())
        title = head["title"].replace("|", "\\|")
        lines.append(f"| [{one.name}](tables/{one.name}.md) | {title} | {claims} |")
    return "\n".join(lines)


def _reading(metrics: Mapping[str, pd.DataFrame]) -> str:
    name = next(iter(metrics), "NAME")
    return f"""## Reading

```python
from datasets import load_dataset

metrics = load_dataset("FOLDER", "{name}", split="train")  # a row a cell and metric, options as columns
```

`FOLDER` is this repository's name on the hub, or where it lies. `records/NAME.parquet` holds the records whole, prompt
by prompt (`smd unpack packed=FOLDER/records/NAME.parquet results_dir=here`); `board/index.html` shows all of them in a
browser, from the disk; `tables` are made of the records, `environment.json` says where those were made."""


_CHECKING = """## Checking

    smd verify FOLDER            # checksums, records, scores from their items, every table and page made again
    smd verify FOLDER sample=3   # and three cells run again"""


def _environments(environments: Sequence[Mapping[str, Any]]) -> str:
    lines = ["## Made with", "", "| records | python | platform | device | torch | transformers |"]
    lines.append("| ---: | --- | --- | --- | --- | --- |")
    for one in environments:
        packages = one["packages"]
        versions = [str(packages.get(name, "")) for name in ("torch", "transformers")]
        told = [str(one[key] or "") for key in ("python", "platform", "device")]
        lines.append("| " + " | ".join([str(one["records"]), *told, *versions]) + " |")
    return "\n".join(lines)
