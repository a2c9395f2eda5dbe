"""What holds a sweep together: a journal that every job appends to, and what is said at its end."""

import contextlib
import json
import secrets
import shlex
import shutil
import sys
import tempfile
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
from smd_research.core.whole_file import write_whole

if TYPE_CHECKING:
    from smd_research.records import Record


_SHORT_S = 2.0
"""Below this nobody asks how long the rest takes."""

_ABANDONED_S = 30 * 86_400.0

NAMED = 12
"""Known cells up to which a command names each; of more it takes the whole folder."""


@dataclass(frozen=True)
class JournalEntry:
    """One finished cell as the journal keeps it."""

    defense: str
    attack: str
    status: str
    reason: str
    results_dir: str
    folder: str = ""
    reused: bool = False
    single: bool = False
    logger: str = "none"
    sync: str = ""
    seconds: float = 0.0
    said: str = ""
    cell: str = ""
    place: int = 0


class Journal:
    """One file a finished cell, in a folder that jobs of any launcher, in any process, on any host, write to.

    It lies in the temporary folder, or once it is shared in the results folder, and goes with the command, however that
    ends: refused, interrupted, or after all its cells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scratch: Scratch | None = None
        self._held: dict[str, Record] = {}
        self._owned = False
        self._known: dict[str, JournalEntry] = {}
        self._told: set[str] = set()
        self._alone = True

    @classmethod
    def new(cls, alone: bool = True) -> "Journal":
        """An empty journal of this command.

        Args:
            alone: whether all its cells are entered here; else nobody knows how many are left.
        """
        scratch = Scratch()
        journal = cls(scratch.path)
        journal._scratch, journal._alone = scratch, alone
        return journal

    def share(self, results_dir: Path) -> None:
        """Move to where jobs on other hosts write to it as well.

        Raises:
            RecordError: nothing can be written there.
        """
        if self._owned:
            return
        folder = results_dir.resolve() / "journals"
        try:
            shared = _new_in(folder)
            shared.chmod(folder.stat().st_mode & 0o777)  # whoever may write results may write this
        except OSError as error:
            raise RecordError(f"cannot write {folder}: {error.strerror}; choose another results_dir=") from error
        for name, entry in self._read().items():
            _write(shared / name, entry)
        self.path, self._owned = shared, True

    def __reduce__(self) -> tuple[type["Journal"], tuple[Path]]:
        return Journal, (self.path,)  # a job in another process writes to it, and does not own it

    def enter(self, entry: JournalEntry) -> None:
        """Add one cell: a reader sees all of it or nothing."""
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
        _write(self.path / name, entry)
        self._told.add(name)

    def entries(self) -> list[JournalEntry]:
        """All entries, in the order in which they finished.

        A job that is run once more finds its first cells known: how those ended stands already.
        """
        kept: dict[str, JournalEntry] = {}
        for name, entry in self._read().items():
            key = f"{entry.place} {entry.cell}" if entry.place else name
            if key not in kept or not entry.reused:
                kept[key] = entry
        return list(kept.values())

    def tell(self) -> None:
        """Say what has finished elsewhere since this was last called."""
        for name, entry in self._read().items():
            if name not in self._told:
                self._told.add(name)
                say(entry.said)

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
        """All entries; the folder is removed."""
        entries = self.entries()
        if self._owned:
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # another command's is there
                self.path.parent.rmdir()
        if self._scratch is not None:
            self._scratch.remove()
        return entries

    def left(self, total: int) -> str:
        """How long the rest takes if its cells are as those that ran; empty before the first and after the last."""
        if not self._alone:
            return ""
        entries = self.entries()
        ran = [entry.seconds for entry in entries if not entry.reused]
        rest = total - len(entries)
        return f", {duration(sum(ran) / len(ran) * rest)} left" if ran and rest > 0 and sum(ran) >= _SHORT_S else ""

    def _read(self) -> dict[str, JournalEntry]:
        """Entries by the names of their files, each read once, since none is changed."""
        names = sorted(path.name for path in self.path.glob("[!.]*.json")) if self.path.is_dir() else []
        for name in names:
            if name not in self._known:
                self._known[name] = JournalEntry(**json.loads((self.path / name).read_text(encoding="utf-8")))
        return {name: self._known[name] for name in sorted(self._known)}


def _write(path: Path, entry: JournalEntry) -> None:
    write_whole(path, json.dumps(asdict(entry)).encode())


def _new_in(folder: Path) -> Path:
    """A new folder in one that other commands remove when theirs was the last in it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            _remove_abandoned(folder)
            return Path(tempfile.mkdtemp(prefix="", dir=folder))


def _remove_abandoned(folder: Path) -> None:
    """Remove journals of commands that were killed, where nothing was entered for longer than a job is queued."""
    for one in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another command's, which ended meanwhile
            if time.time() - one.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(one, ignore_errors=True)


def position(job: Any, words: Sequence[str]) -> tuple[int, int] | None:
    """Which cell of how many this is; None for a single run.

    Args:
        job: Hydra's own configuration of the job.
        words: the command line.
    """
    return (int(job.job.num) + 1, total) if (total := cells(job, words)) else None


def cells(job: Any, words: Sequence[str]) -> int:
    """How many cells a sweep has; 0 for a single run.

    Args:
        job: Hydra's own configuration of the command, or of a job.
        words: the command line.
    """
    if job.mode is None or job.mode.name != "MULTIRUN":  # none: of --help
        return 0
    return prod(len(list(override.sweep_string_iterator())) for override in swept(job, words))


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
        said = f"{counter}{title}: failed: {error}"
        entered = JournalEntry(**_of(plan, place), status="failed", reason=str(error), seconds=_since(began), said=said)
        journal.enter(entered)
        say(said)
        return None
    if record is None:
        say(f"{counter}{title}: no record, and rerun=never")
        return None
    status = str(record.status)
    journal.hold(record)
    known = " (known)" if reused else ""
    said = f"{counter}{title}: {status}{known}{': ' + record.reason if record.reason else ''}"
    journal.enter(
        JournalEntry(
            **_of(plan, place),
            status=status,
            reason=record.reason,
            folder=str(record.path),
            reused=reused,
            single=place is None,
            sync="" if reused else sync_command(plan.logger, plan.results_dir),
            seconds=_since(began),
            said=said,
        )
    )
    say(f"{said}{journal.left(place[1]) if place else ''}")
    return record


def _of(plan: Plan, place: tuple[int, int] | None) -> dict[str, Any]:
    """What an entry says of its cell, however that ended."""
    cell = plan.cell
    return {
        "defense": str(cell.defense["name"]),
        "attack": str(cell.attack["name"]),
        "results_dir": str(plan.results_dir),
        "logger": str(plan.logger.get("name", "none")),
        "cell": cell.id,
        "place": place[0] if place else 0,
    }


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def title_of(cell: Cell) -> str:
    """What a person calls a cell while it runs."""
    return f"{cell.defense['name']} against {cell.attack['name']} on {cell.model['name']}"


def finish(journal: Journal, command: str, listed: bool = False, asked: int = 0) -> int:
    """Show what a command found, name what failed or does not apply.

    Args:
        journal: of the command.
        command: as it was given.
        listed: whether its cells are those that an experiment lists.
        asked: how many cells of a sweep must have ended.

    Returns:
        0; 1 when a cell failed or has not ended, or when a single run does not apply.
    """
    entries = journal.close()
    lost = max(0, asked - len(entries))
    if not entries:
        return _say_lost(lost, command)
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
    return verdict(entries, command, lost)


def verdict(entries: Sequence[JournalEntry], command: str, lost: int = 0) -> int:
    """Name the cells that failed or do not apply, and the command that retries the failed ones.

    Args:
        entries: of the cells that ended.
        command: as it was given.
        lost: how many did not, since their jobs were.

    Returns:
        1 when one failed or was lost, else 0.
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
    return 1 if _say_lost(lost, command) or failed else 0


def _say_lost(lost: int, command: str) -> int:
    if lost:
        print(f"{lost} cells have no record, since their jobs were lost or out of time; this runs them: {command}")
    return 1 if lost else 0


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
