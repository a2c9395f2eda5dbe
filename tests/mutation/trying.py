"""Trying a mutant: in a copy of the tree, with the tests that concern its module, and no longer than it takes."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from xml.etree import ElementTree

import pytest
from mutants import Mutant

PATIENCE = 3.0
"""A mutant is killed by the clock when its tests take so many times as long as they did, and ``GRACE_S`` on top."""
GRACE_S = 30.0
LIBRARIES = ("torch", "transformers", "scipy.stats", "scipy.optimize", "pandas", "pyarrow.parquet", "hypothesis")
_ALL_PASSED, _NONE_FOUND = 0, 5


class TestsFailError(Exception):
    """Tests that fail without a mutant say nothing of one."""


@dataclass(frozen=True)
class Tree:
    """A copy of the tree, which mutants may change.

    Attributes:
        root: where it lies.
    """

    root: Path

    @classmethod
    def copied(cls, source: Path, root: Path) -> "Tree":
        """A copy of what git knows or would add; ignored files stay behind."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=source,
            check=True,
            capture_output=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (source / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, root / name)
        return cls(root)

    def seconds(self, tests: Sequence[Path]) -> dict[Path, float]:
        """How long each test file takes as the tree is.

        Raises:
            TestsFailError: where one fails.
        """
        report = self.root / "mutation.xml"
        ended = self._pytest([*map(str, tests), f"--junitxml={report}", "-ojunit_family=xunit1"], None)
        if ended != _ALL_PASSED:
            raise TestsFailError("the tests fail without a mutant: see above")
        taken = defaultdict[Path, float](float)
        for case in ElementTree.parse(report).iter("testcase"):
            taken[Path(case.attrib["file"])] += float(case.attrib["time"])
        return {path: taken[path] for path in tests}

    def kills(self, mutant: Mutant, tests: Sequence[Path], seconds: float) -> bool:
        """Whether a test fails, or does not end, with the mutant in place.

        Args:
            mutant: its path is relative to the root.
            tests: in the order in which they are run.
            seconds: how long they take without it.
        """
        path = self.root / mutant.path
        original = path.read_bytes()
        path.write_bytes(original[: mutant.start] + mutant.new.encode() + original[mutant.stop :])
        try:
            ended = self._pytest(["-x", *map(str, tests)], PATIENCE * seconds + GRACE_S)
        finally:
            path.write_bytes(original)
        return ended not in (_ALL_PASSED, _NONE_FOUND)

    def _pytest(self, words: Sequence[str], timeout_s: float | None) -> int:
        """Run pytest here and say how it ended; nothing of what it started is left when time is up."""
        process = get_context("fork").Process(target=_run_pytest, args=(self.root, words, timeout_s is None))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
        return process.exitcode if process.exitcode is not None else -1


def preload() -> None:
    """Import here what most tests wait for, so that each mutant's process, a fork of this one, has it already."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CI": "true", "TOKENIZERS_PARALLELISM": "false"}
    for name in LIBRARIES:
        importlib.import_module(name)


def _run_pytest(root: Path, words: Sequence[str], loud: bool) -> None:
    """What the process of a mutant does.

    Python keeps no bytecode: it would take a mutant of the same second and length for what it was.
    """
    os.setsid()
    os.chdir(root)
    os.environ["PYTHONPATH"] = sys.path[0] = str(root)
    sys.dont_write_bytecode = True
    if not loud:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    os._exit(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", *words]))


def affordable(tests: Iterable[Path], taken: Mapping[Path, float], seconds: float) -> list[Path]:
    """As many of the tests, the quickest first, as end within so many seconds; at least one."""
    chosen, total = list[Path](), 0.0
    for test in sorted(tests, key=lambda one: taken[one]):
        total += taken[test]
        if chosen and total > seconds:
            break
        chosen.append(test)
    return chosen
