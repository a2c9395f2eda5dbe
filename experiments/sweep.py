"""What holds a sweep together: a journal that every job appends to, and what is said at its end."""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cells import Plan
from experiments.overrides import parse
from experiments.progress import say
from smd_research.core.cell import Cell
from smd_research.core.errors import LabError, RecordError

if TYPE_CHECKING:
    from smd_research.records import Record


@dataclass(frozen=True)
class Entry:
    """One finished cell as the journal keeps it."""

    name: str
    status: str
    reason: str
    command: str
    folder: str
    results_dir: str
    reused: bool
    single: bool


class Journal:
    """One line a finished cell, in a temporary file: jobs of any launcher, in any process, append to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls) -> "Journal":
        """An empty journal of this command."""
        handle, name = tempfile.mkstemp(prefix="smd-", suffix=".jsonl")
        os.close(handle)
        return cls(Path(name))

    def enter(self, entry: Entry) -> None:
        """Append one cell."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def close(self) -> list[Entry]:
        """All entries, in the order in which they finished; the file is removed."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        self.path.unlink()
        return [Entry(**json.loads(line)) for line in lines]


def position(job: Any, words: Sequence[str]) -> tuple[int, int] | None:
    """Which cell of how many this is; None for a single run.

    Args:
        job: Hydra's own configuration of the job.
        words: the command line.
    """
    if str(job.mode.name) != "MULTIRUN":
        return None
    swept = {str(key): f"{key}={value}" for key, value in (job.sweeper.params or {}).items()}
    swept |= {override.key_or_group: str(override.input_line) for override in parse(words)}
    sizes = [
        len(list(override.sweep_string_iterator()))
        for override in parse(list(swept.values()))
        if override.is_sweep_override()
    ]
    return int(job.job.num) + 1, prod(sizes)


def attempt(
    plan: Plan,
    run: Callable[[], tuple["Record | None", bool]],
    journal: Journal,
    place: tuple[int, int] | None,
) -> None:
    """Run one cell, say how it ended, and enter it; in a sweep no cell's failure ends the others.

    Raises:
        RecordError: the results folder cannot be written, or, in a single run, the record is corrupt.
    """
    title = title_of(plan.cell)
    counter = f"[{place[0]:>{len(str(place[1]))}}/{place[1]}] " if place else ""
    say(f"{counter}{title} ...") if place is None or sys.stderr.isatty() else None
    try:
        record, reused = run()
    except RecordError as error:
        if place is None or "corrupt" not in str(error):
            raise
        _enter(journal, plan, "failed", str(error), "", reused=False, single=False)
        say(f"{counter}{title}: failed: {error}")
        return
    if record is None:
        say(f"{counter}{title}: no record, and rerun=never")
        return
    status = str(record.status)
    known = " (known)" if reused else ""
    say(f"{counter}{title}: {status}{known}{': ' + record.reason if record.reason else ''}")
    _enter(journal, plan, status, record.reason, str(record.path), reused=reused, single=place is None)


def _enter(journal: Journal, plan: Plan, status: str, reason: str, folder: str, *, reused: bool, single: bool) -> None:
    cell = plan.cell
    journal.enter(Entry(title_of(cell), status, reason, cell.command, folder, str(plan.results_dir), reused, single))


def title_of(cell: Cell) -> str:
    """What a person calls a cell while it runs."""
    return f"{cell.defense['name']} against {cell.attack['name']} on {cell.model['name']}"


def finish(journal: Journal) -> int:
    """Show what the command found, name what failed or does not apply.

    Returns:
        0; 1 when a cell failed, or when a single run does not apply.
    """
    entries = journal.close()
    if not entries:
        return 0
    from experiments import show

    if entries[0].single:
        only = entries[0]
        if only.status == "ok":
            show.cell(Path(only.folder))
            return 0
        print(f"error: {only.name} is {only.status}: {only.reason} (recorded in {only.folder})", file=sys.stderr)
        return 1
    show.sweep([Path(entry.folder) for entry in entries if entry.folder], Path(entries[0].results_dir))
    return verdict(entries)


def verdict(entries: Sequence[Entry]) -> int:
    """Name the cells that failed or do not apply.

    Returns:
        1 when one failed, else 0.
    """
    _name_the_blank(entries)
    return 1 if any(entry.status == "failed" for entry in entries) else 0


def _name_the_blank(entries: Sequence[Entry]) -> None:
    blank = [entry for entry in entries if entry.status == "n/a"]
    failed = [entry for entry in entries if entry.status == "failed"]
    if blank:
        print(f"\nNot applicable ({len(blank)}), shown as –:")
        for entry in blank:
            print(f"  {entry.name}: {entry.reason}")
    if failed:
        print(f"\nFailed ({len(failed)}); each line runs one again:")
        for entry in failed:
            print(f"  {entry.command} rerun=failed\n      {entry.reason}")
    ran = sum(not entry.reused for entry in entries)
    print(f"\n{len(entries)} cells: {ran} run now, {len(entries) - ran} known before, {len(failed)} failed")


def one_line(error: Exception) -> str:
    """An error as the reason of a failed cell."""
    text = " ".join(str(error).split())
    return text if isinstance(error, LabError) and text else f"{type(error).__name__}: {text}"


def trace(error: Exception) -> None:
    """Show the stack of an error that nobody foresaw; those the lab raises on purpose say enough by themselves."""
    if not isinstance(error, LabError):
        traceback.print_exception(error)
