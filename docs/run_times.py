"""What commands and benches take on two cores, from committed records: writes docs/run-times.md, or checks it.

python docs/run_times.py            writes the page
python docs/run_times.py --check    fails where the page is not what the records say
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
REFERENCE, SAMPLE, CONF = ROOT / "results" / "reference", ROOT / "results" / "sample", ROOT / "conf"
PAGE = Path(__file__).with_name("run-times.md")
UNKNOWN = "not measured"

SAMPLES = {
    "smd table table=attacks_vs_defenses n_prompts=4": SAMPLE,
    "smd run experiment=confidential_prompting n_prompts=4": SAMPLE / "confidential_prompting",
    "smd table table=weight_decomposition": SAMPLE / "weight_decomposition",
    "smd table table=keyed_shaking": SAMPLE / "keyed_shaking",
}
"""Commands that make the cells of which the records are committed; each record says what its phases took."""

ATTACK = ("time (s a prompt)", "attack (s a prompt)", "attack (s)", "time (s)", "audit (s)")
"""Columns in which reference tables show what an attack took."""

HEAD = """\
# Run times

<!-- Written by docs/run_times.py from committed records: edit that, not this. -->

What was recorded on {machine}, one thread a party, without an accelerator. Seconds of different machines are never
compared: these say which commands are for a coffee and which for a night. "{unknown}" means that neither a sample nor a
table of the reference shows the figure. A command that is given again takes seconds, since every cell is known;
`experiment=smoke` cuts any of them down to seconds, to see that it runs.
"""

COMMANDS = """\
## Commands whose records are committed

Seconds in which cells were observed, attacked and scored; loading is extra. Cells to which an attack does not apply
take none and are not counted. The records are those of `results/sample`; each names the versions of its components,
some of them older ones.
"""

PHASES = """\
## Private tuning, by phase

From table `shaking_phases`: implanting is the user's work, tuning and inference the provider's.
"""

TABLES = """\
## Tables

Seconds in which the cells of the reference were observed, attacked and scored, summed over cells, where their records
are committed; many ran beside other work. A cell that two tables share counts in both. Of other tables, what their
attacks took. The small size of a table is made for an hour on two cores, `size=full` for a night or an accelerator.
"""

BENCHES = """\
## Benches

From the first model loaded to the last case, with the machine to themselves. Older files do not say it.
"""


def packed(path: Path) -> tuple[float, int]:
    """Seconds of all cells of a file of packed records, and how many cells say so."""
    environments = (json.loads(text) for text in pd.read_parquet(path)["environment.json"])
    spent = [sum(phases.values()) for phases in (one.get("wall_s") for one in environments) if phases]
    return sum(spent), len(spent)


def wall(folder: Path) -> tuple[float, int, Counter[str]]:
    """Seconds of all cells of a results folder that say so, how many do, and prompts a cell."""
    seconds, cells, prompts = 0.0, 0, Counter[str]()
    for path in sorted(folder.glob("cells/*/environment.json")):
        phases = json.loads(path.read_text(encoding="utf-8")).get("wall_s")
        if phases:
            seconds, cells = seconds + sum(phases.values()), cells + 1
            prompts[json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))["cell"]["n_prompts"]] += 1
    return seconds, cells, prompts


def said(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def command_rows() -> Iterator[list[str]]:
    """The commands of which all records are committed."""
    for command, folder in SAMPLES.items():
        seconds, cells, prompts = wall(folder)
        counts = " or ".join(map(str, sorted(prompts)))
        yield [f"`{command}`", said(seconds) if cells else UNKNOWN, f"{cells} cells of {counts} prompts or texts"]


def bench_rows() -> Iterator[list[str]]:
    """Every bench, and how many rows the reference has of it."""
    names = {path.stem for path in (ROOT / "experiments" / "benches").glob("*.py") if not path.stem.startswith("_")}
    for name in sorted(names - {"case", "measuring"}):
        path = REFERENCE / "bench" / f"{name}.json"
        if not path.is_file():
            yield [f"`smd bench bench={name}`", UNKNOWN, ""]
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        size, rows = document["settings"].get("size", "small"), len(document["cases"])
        took = document["environment"]["wall_s"].get("bench")
        repeats = f"{document['settings']['repeats']} repeats"
        yield [
            f"`smd bench bench={name}`",
            UNKNOWN if took is None else said(took),
            f"{rows} rows in the reference, size={size}, {repeats}",
        ]


def table_rows() -> Iterator[list[str]]:
    """Every table: what its cells took, or its attacks, summed over prompts, where its reference shows no more."""
    for path in sorted((CONF / "table").glob("*.yaml")):
        records, reference = REFERENCE / "records" / f"{path.stem}.parquet", REFERENCE / f"{path.stem}.csv"
        seconds, cells = packed(records) if records.is_file() else (0.0, 0)
        attacks = attack_seconds(reference) if reference.is_file() and not cells else None
        of_attacks = UNKNOWN if attacks is None else f"{said(attacks)}, attacks alone"
        yield [f"`smd table table={path.stem}`", said(seconds) if cells else of_attacks, str(cells) if cells else ""]


def attack_seconds(path: Path) -> float | None:
    """Seconds of attack over all rows of a reference table: a mean times the prompts or seeds that it is of."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    column = next((column for column in ATTACK if rows and column in rows[0]), None)
    found = [(_number(row[column]), _number(row[f"{column} n"])) for row in rows] if column else []
    known = [(mean, n) for mean, n in found if mean is not None and n is not None]
    return sum(mean * n for mean, n in known) if known else None


def phase_rows() -> Iterator[list[str]]:
    """What the phases of private tuning took, by row of table shaking_phases."""
    with (REFERENCE / "shaking_phases.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            setting = " ".join(f"{key}={row[key]}" for key in ("tilt", "head", "tuning") if row[key] != "none")
            phases = (_number(row.get(f"{phase} (s)", "")) for phase in ("implant", "tune", "infer"))
            yield [f"{row['defense']} {setting}", *("–" if one is None else said(one) for one in phases)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def markdown(head: list[str], rows: Iterator[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page() -> str:
    """The whole page."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in SAMPLE.rglob("environment.json")]
    processors = {f"{cpu['name']}, {cpu['usable']} cores" for cpu in (record.get("cpu") for record in records) if cpu}
    parts = [
        HEAD.format(machine=", ".join(sorted(processors)), unknown=UNKNOWN),
        COMMANDS,
        markdown(["command", "took", "records"], command_rows()) + "\n",
        PHASES,
        markdown(["setting", "implant", "tune", "infer"], phase_rows()) + "\n",
        TABLES,
        markdown(["command", "took", "cells"], table_rows()) + "\n",
        BENCHES,
        markdown(["command", "took", "records"], bench_rows()) + "\n",
    ]
    return "\n".join(parts)


def main(argv: list[str]) -> int:
    """Write the page, or with ``--check`` compare it."""
    if "--check" not in argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        print("error: docs/run-times.md is not what the records say: run python docs/run_times.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
