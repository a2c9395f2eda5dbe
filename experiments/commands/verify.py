"""``smd verify FOLDER``: a published folder checked without trusting it, layer by layer; each finding is a line."""

import os
import random
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from experiments.composing.app import FAILED, USAGE, launch
from experiments.composing.overrides import UsageError, is_value
from smd_research.core.errors import MachineError, RecordError
from smd_research.core.paths import conf_dir
from smd_research.core.progress import say

if TYPE_CHECKING:
    from experiments.trials.running import Runner
    from smd_research.records import Record
    from smd_research.records.manifest import Manifest

_LISTED = 200
"""Findings that are all said; of more, their number."""

_LONGEST = 500

_MEMORY = 2**33
"""Bytes that may be taken to read a folder: a file of a few hundred may say that it holds more than any machine has."""


@dataclass(frozen=True)
class RunAgain:
    """How many cells are run again, which, and how far their means may lie elsewhere."""

    cells: int
    seed: int
    tolerance: float


@dataclass
class Account:
    """What was looked at, a line each, and what was found."""

    lines: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def enter(self, line: str, findings: Sequence[str]) -> None:
        """What one layer looked at and found."""
        self.lines.append(line)
        self.findings += findings


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd verify`` command.

    Returns:
        0 where all holds; 1 with findings; 2 where there is no published folder.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    own = set(OmegaConf.load(conf_dir() / "verify.yaml"))
    places = [
        word
        for word in words
        if not word.startswith("-") and not is_value(word, words) and re.split("[=.]", word)[0] not in own
    ]
    if any(_is_imported_from(_place(place)) for place in places):
        said = "start it outside of the folder, and not beside it with python -m: Python imports what lies there"
        print(f"error: {said}", file=sys.stderr)
        return USAGE
    found: list[Account] = []

    def one(cfg: DictConfig) -> None:
        sample = _sample(cfg)
        if len(places) != 1 or "=" in places[0]:
            raise UsageError(f"one folder is needed, not {', '.join(places) or 'none'}: smd verify FOLDER")
        try:
            found.append(verify(_place(places[0]), sample))
        except RecordError as error:
            raise UsageError(str(error)) from error
        except OSError as error:
            raise UsageError(f"cannot read {error.filename or places[0]}: {error.strerror or error}") from error

    code = launch(one, "verify", "smd verify", [word for word in words if word not in places], own_modules=False)
    for account in found:
        _say(account)
        code = code or (FAILED if account.findings else 0)
    return code


def _place(word: str) -> Path:
    """A folder as it is given; the home of somebody unknown is a name like any other."""
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)


def _is_imported_from(folder: Path) -> bool:
    """Whether Python may import what lies in a folder: where it is started, or by the folder's name from beside it."""
    place = Path(os.path.realpath(folder))
    beside = place.name.isidentifier() and any(os.path.realpath(one) == str(place.parent) for one in sys.path)
    return beside or Path.cwd().is_relative_to(place)


def verify(folder: Path, sample: RunAgain) -> Account:
    """Check a folder.

    Args:
        folder: that somebody published.
        sample: what is run again.

    Raises:
        RecordError: it is no folder, or none that was published.
    """
    from smd_research.core.memory import at_most
    from smd_research.core.quoting import quoted
    from smd_research.records.manifest import MANIFEST, checksums, mismatches, read_manifest, walked

    if not folder.is_dir():
        raise RecordError(f"{folder} is no folder")
    told, account = read_manifest(folder), Account()
    digest = checksums({MANIFEST: (folder / MANIFEST).read_bytes()})[MANIFEST]
    made_by = f"{quoted(told.made_by)}{f', commit {quoted(told.commit, 12)}' if told.commit else ''}"
    account.lines.append(f"manifest: {digest} ({made_by}; licence {quoted(told.licence, 40)})")
    files, odd = walked(folder)
    wrong = [f"{name}: no file but a link or a device; nothing more is read" for name in odd]
    account.enter(f"files: {len(files)}, {len(told.files)} in the manifest", [*wrong, *mismatches(folder, told, files)])
    if odd:
        return account
    try:
        with at_most(_MEMORY):
            records = _read(folder, files, told, account)
    except MemoryError:
        account.findings.append(f"it takes more than {_MEMORY / 2**30:g} GiB of memory to read; nothing more is read")
        return account
    if sample.cells:
        _run_again(records, sample, account)
    return account


def _read(folder: Path, files: Sequence[str], told: "Manifest", account: Account) -> list["Record"]:
    """The records that hold; what is wrong with the others, and with all that is made of them, is entered."""
    from experiments.composing.rechecking import look, made_again

    looked = look(folder, files)
    records = [record for found in looked.measured.records.values() for record in found]
    kept = "".join(f"; {count} not: {why}" for why, count in looked.not_scored.items())
    account.enter(f"records: {len(records)} read, {looked.scored} scored again from their items{kept}", looked.findings)
    tables = {name.partition(".")[0] for name in files if name.startswith("tables/")}
    again = list(made_again(folder, files, told, looked.measured))
    account.enter(f"made again of them: {len(tables)} tables, page, board", again)
    account.lines += _elsewhere(told, again)
    return records


def _elsewhere(told: "Manifest", findings: Sequence[str]) -> Iterator[str]:
    """A line where another version of the laboratory may be why what is made differs."""
    from smd_research.records import environment

    here = environment()
    commit = (here["git"] or {}).get("commit", "")
    if findings and (told.commit != commit or told.made_by != f"smd-research {here['packages'].get('smd-research')}"):
        yield f"  another version may make them otherwise: here it is commit {commit[:12] or 'unknown'}"


def _run_again(records: Sequence["Record"], sample: RunAgain, account: Account) -> None:
    from experiments.trials.repeating import stated_seconds
    from experiments.trials.running import Runner
    from smd_research.core.scratch import Scratch

    chosen = random.Random(sample.seed).sample(sorted(records, key=_id), min(sample.cells, len(records)))
    scratch, runner, ran = Scratch(), Runner(), 0
    lines, findings = [], []
    for number, record in enumerate(chosen, start=1):
        name = f"{record.cell.readable}-{record.cell.id}"
        say(f"[{number}/{len(chosen)}] {name} (it says that it took {stated_seconds(record.environment):.3g} s) ...")
        told, wrong = _once_more(record, runner, scratch.path, sample.tolerance)
        ran += not told.startswith("skipped")
        lines.append(f"  {name}: {told}")
        findings += [f"{name}: {line}" for line in wrong]
    scratch.remove()
    account.enter(f"cells: {ran} of {len(chosen)} run again (sample_seed={sample.seed})", [])
    account.lines += lines
    account.findings += findings


def _once_more(record: "Record", runner: "Runner", results_dir: Path, tolerance: float) -> tuple[str, list[str]]:
    """What became of a cell that is run again, and what it contradicts."""
    from experiments.composing.strangers import NotRunError, OtherCellError, plan_of
    from experiments.trials.repeating import differing, same_lock
    from smd_research.core.quoting import quoted
    from smd_research.records import Status

    try:
        here, _ = runner.run(plan_of(record, results_dir))
    except (NotRunError, MachineError) as error:
        return f"skipped: {quoted(error)}", []
    except OtherCellError as error:
        return "skipped", [str(error)]
    assert here is not None
    if here.status is Status.FAILED and record.status is not Status.FAILED:
        return f"skipped: it fails here: {quoted(here.reason)}", []
    same = same_lock(record.environment, here.environment)
    wrong = list(differing(record, here, None if same else tolerance))
    lock = "the same lock" if same else f"another lock or processor, means within {tolerance:g}"
    told = lock if here.status is Status.OK else f"it is {here.status} here"
    return f"{'differs' if wrong else 'holds'} ({told})", wrong


def _id(record: "Record") -> str:
    return record.cell.id


def _sample(cfg: DictConfig) -> RunAgain:
    """The sample that a command line asks for.

    Raises:
        UsageError: a value that cannot be.
    """
    for name in ("sample", "sample_seed"):
        value = cfg[name]
        if not (isinstance(value, int) and value >= 0) and not (name == "sample_seed" and value is None):
            raise UsageError(f"{name}={value}: a count is needed, 0 or more")
    if not isinstance(cfg.tolerance, int | float) or not 0 <= cfg.tolerance < 1:
        raise UsageError(f"tolerance={cfg.tolerance} is out of range: 0 to 1")
    seed = secrets.randbelow(2**31) if cfg.sample_seed is None else int(cfg.sample_seed)
    return RunAgain(int(cfg.sample), seed, float(cfg.tolerance))


def _say(account: Account) -> None:
    """Print it; names and words of a stranger stand in it, which a terminal is not to obey."""
    from smd_research.core.quoting import quoted

    for line in (*account.lines, *(f"finding: {finding}" for finding in account.findings[:_LISTED])):
        print(quoted(line, _LONGEST))
    if len(account.findings) > _LISTED:
        print(f"finding: and {len(account.findings) - _LISTED} more")
    print(f"{len(account.findings)} findings" if account.findings else "all holds")


if __name__ == "__main__":
    sys.exit(main())
