"""What holds a sweep together: a journal that every job appends to, and what is said at its end."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.composing.campaigns import swept
from experiments.trials.plan import Plan
from experiments.trials.sinks import sync_command
from smd_research.core.cell import Cell
from smd_research.core.errors import MachineError, RecordError
from smd_research.core.progress import duration, say
from smd_research.core.scratch import Scratch

if TYPE_CHECKING:
    from smd_research.records import Record


_SHORT_S = 2.0
"""Below this nobody asks how long the rest takes."""

NAMED = 12
"""Known cells up to which a command names each; of more it takes the whole folder."""


@dataclass(frozen=True)
class JournalEntry:
    """One finished cell as the journal keeps it."""

    defense: str
    attack: str
    status: str
    reason: str
    folder: str
    results_dir: str
    reused: bool
    single: bool
    logger: str = "none"
    sync: str = ""
    seconds: float = 0.0


class Journal:
    """One line a finished cell, in a temporary file: jobs of any launcher, in any process, append to it.

    The file goes with the command, however that ends: refused, interrupted, or after all its cells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scratch: Scratch | None = None
        self._held: dict[str, Record] = {}

    @classmethod
    def new(cls) -> "Journal":
        """An empty journal of this command."""
        scratch = Scratch()
        journal = cls(scratch.path / "journal.jsonl")
        journal._scratch = scratch
        journal.path.touch()
        return journal

    def __reduce__(self) -> tuple[type["Journal"], tuple[Path]]:
        return Journal, (self.path,)  # a job in another process writes to it, and does not own it

    def enter(self, entry: JournalEntry) -> None:
        """Append one cell."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")

    def entries(self) -> list[JournalEntry]:
        """All entries, in the order in which they finished."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [JournalEntry(**json.loads(line)) for line in lines]

    def hold(self, record: "Record") -> None:
        """Keep what was read or written here without its items, so that the end of the command need not read it."""
        self._held[str(record.path)] = replace(record, items=record.items.iloc[:0])

    def records(self, entries: Sequence[JournalEntry]) -> list["Record"]:
        """The records of entries that have one, without items where they were held.

        Raises:
            RecordError: one that another process wrote cannot be read.
        """
        from smd_research.records import read

        return [self._held.get(entry.folder) or read(Path(entry.folder)) for entry in entries if entry.folder]

    def close(self) -> list[JournalEntry]:
        """All entries; the file is removed."""
        entries = self.entries()
        if self._scratch is not None:
            self._scratch.remove()
        return entries

    def left(self, total: int) -> str:
        """How long the rest takes if its cells are as those that ran; empty before the first and after the last."""
        entries = self.entries()
        ran = [entry.seconds for entry in entries if not entry.reused]
        rest = total - len(entries)
        return f", {duration(sum(ran) / len(ran) * rest)} left" if ran and rest > 0 and sum(ran) >= _SHORT_S else ""


def position(job: Any, words: Sequence[str]) -> tuple[int, int] | None:
    """Which cell of how many this is; None for a single run.

    Args:
        job: Hydra's own configuration of the job.
        words: the command line.
    """
    if str(job.mode.name) != "MULTIRUN":
        return None
    sizes = [len(list(override.sweep_string_iterator())) for override in swept(job, words)]
    return int(job.job.num) + 1, prod(sizes)


def attempt(
    plan: Plan,
    run: Callable[[], tuple["Record | None", bool]],
    journal: Journal,
    place: tuple[int, int] | None,
) -> "Record | None":
    """Run one cell, say how it ended, and enter it; in a sweep no cell's failure ends the others.

    Returns:
        Its record; None where there is none.

    Raises:
        RecordError: the results folder cannot be written, or, in a single run, the record is corrupt.
        MachineError: in a single run, something is not there that the cell needs.
    """
    title = title_of(plan.cell)
    counter = f"[{place[0]:>{len(str(place[1]))}}/{place[1]}] " if place else ""
    say(f"{counter}{title} ...") if place is None or sys.stderr.isatty() else None
    began = time.monotonic()
    try:
        record, reused = run()
    except (RecordError, MachineError) as error:
        if place is None or (isinstance(error, RecordError) and "corrupt" not in str(error)):
            raise
        _enter(journal, plan, "failed", str(error), "", reused=False, single=False, seconds=time.monotonic() - began)
        say(f"{counter}{title}: failed: {error}")
        return None
    if record is None:
        say(f"{counter}{title}: no record, and rerun=never")
        return None
    status = str(record.status)
    journal.hold(record)
    known = " (known)" if reused else ""
    seconds = time.monotonic() - began
    _enter(journal, plan, status, record.reason, str(record.path), reused=reused, single=place is None, seconds=seconds)
    left = journal.left(place[1]) if place else ""
    say(f"{counter}{title}: {status}{known}{': ' + record.reason if record.reason else ''}{left}")
    return record


def _enter(
    journal: Journal,
    plan: Plan,
    status: str,
    reason: str,
    folder: str,
    *,
    reused: bool,
    single: bool,
    seconds: float,
) -> None:
    cell = plan.cell
    defense, attack = str(cell.defense["name"]), str(cell.attack["name"])
    logger = str(plan.logger.get("name", "none"))
    sync = "" if reused or not folder else sync_command(plan.logger, plan.results_dir)
    results_dir = str(plan.results_dir)
    ended = (defense, attack, status, reason, folder, results_dir, reused, single, logger, sync, round(seconds, 3))
    journal.enter(JournalEntry(*ended))


def title_of(cell: Cell) -> str:
    """What a person calls a cell while it runs."""
    return f"{cell.defense['name']} against {cell.attack['name']} on {cell.model['name']}"


def finish(journal: Journal, command: str, listed: bool = False) -> int:
    """Show what a command found, name what failed or does not apply.

    Args:
        journal: of the command.
        command: as it was given.
        listed: whether its cells are those that an experiment lists.

    Returns:
        0; 1 when a cell failed, or when a single run does not apply.
    """
    entries = journal.close()
    if not entries:
        return 0
    from experiments.commands import show

    if entries[0].single:
        only = entries[0]
        if only.status == "ok":
            show.cell(Path(only.folder))
            _say_where_logged(entries)
            return 0
        print(
            f"error: {only.attack} against {only.defense} is {only.status}: {only.reason} (recorded in {only.folder})",
            file=sys.stderr,
        )
        return 1
    show.sweep(journal.records(entries), Path(entries[0].results_dir), listed)
    return verdict(entries, command)


def verdict(entries: Sequence[JournalEntry], command: str) -> int:
    """Name the cells that failed or do not apply, and the command that retries the failed ones.

    Returns:
        1 when one failed, else 0.
    """
    for status, heading in (("n/a", "Not applicable, shown as –"), ("failed", "Failed")):
        named = [entry for entry in entries if entry.status == status]
        if named:
            print(f"\n{heading} ({len(named)})")
            for line in _by_reason(named):
                print(f"  {line}")
    failed = sum(entry.status == "failed" for entry in entries)
    if failed:
        print(f"Run the failed ones again: {command}")
    known = sum(entry.reused for entry in entries)
    print(f"\n{len(entries)} cells: {len(entries) - known} run now, {known} known before, {failed} failed")
    _say_where_logged(entries)
    return 1 if failed else 0


def _say_where_logged(entries: Sequence[JournalEntry]) -> None:
    """Name what a logger keeps here until it is sent on, and the known cells, which were not logged again."""
    for command in dict.fromkeys(entry.sync for entry in entries if entry.sync):
        print(f"Send the runs to Weights & Biases: {command}")
    known = [entry for entry in entries if entry.reused and entry.logger != "none"]
    if known:
        words = ["smd", "log", f"results_dir={known[0].results_dir}", f"logger={known[0].logger}"]
        if len(known) <= NAMED:
            words.append(f"cells=[{','.join('-'.join(Path(entry.folder).name.split('-')[-2:]) for entry in known)}]")
        print(f"{len(known)} known, not logged again; this logs them: {shlex.join(words)}")


def _by_reason(entries: Sequence[JournalEntry]) -> list[str]:
    """One line for each attack and reason, naming the defenses."""
    defenses: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        defenses.setdefault((entry.attack, entry.reason), []).append(entry.defense)
    return [
        f"{attack} against {', '.join(dict.fromkeys(names))}: {reason}" for (attack, reason), names in defenses.items()
    ]
