"""A table of 24 cells of an attack that counts how often it is run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

COUNTED = '''"""Random tokens, and a line in a file whenever it begins and ends; between, time for whoever kills."""

import os
import time
from pathlib import Path

from attacks.baselines.random import Random


class Counted(Random):
    """Draws tokens."""

    def fit(self, public):
        super().fit(public)
        note("began")
        time.sleep(float(Path("seconds").read_text()))
        note("ended")


def note(what):
    with open("counted", "a") as file:
        print(what, os.getpid(), os.environ.get("OMP_NUM_THREADS"), job(), file=file)


def job():
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else os.environ.get("SLURM_JOB_ID")
'''
ATTACK = "# Random tokens, counted.\n_target_: mine.counted.Counted\ncites: own\n"
TABLE = """# Cells of no great interest.
title: Grid
common: n_prompts=2 prompt_tokens=6 max_new_tokens=2
sweep: ["defense=none,split attack=counted seed=range(12)"]
view: summary
"""
CELLS = 24
LINE = f"{CELLS} cells: {CELLS} run now, 0 known before, 0 failed"


class Grid:
    """The table in a folder of its own, and the commands that fill it.

    Attributes:
        folder: where commands are given; what their cells count lies there as well.
        results: where their records go.
    """

    def __init__(self, folder: Path, seconds: float = 0.0, seeds: int = CELLS // 2) -> None:
        self.folder, self.results = folder, folder / "results"
        files = {
            "mine/counted.py": COUNTED,
            "mine/conf/attack/counted.yaml": ATTACK,
            "mine/conf/table/grid.yaml": TABLE.replace("range(12)", f"range({seeds})"),
            "seconds": str(seconds),
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    def start(self, command: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Give a command, over the table where it takes one."""
        line = [sys.executable, "-m", "experiments", command, "-cd", "mine/conf", *words]
        line += [] if command == "run" else ["table=grid"]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", **(env or {})}
        return subprocess.Popen(
            line,
            cwd=self.folder,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def noted(self, what: str) -> list[list[str]]:
        """Process, threads and job of whatever began or ended a cell, in order."""
        path = self.folder / "counted"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line[1:] for line in lines if line[0] == what]

    def unfinished(self) -> list[list[str]]:
        """Of what began a cell, that which has not ended it."""
        began, ended = self.noted("began"), self.noted("ended")
        return [one for one in began if began.count(one) > ended.count(one)]

    def refused(self, *words: str, env: dict[str, str] | None = None) -> str:
        """The one line of a command that runs nothing."""
        started = self.start("table", *words, env=env)
        said, _ = started.communicate(timeout=240)
        assert started.returncode == 1, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in said
        assert not self.noted("began")
        return line
