"""The laboratory from a script, in an empty folder, without the guard that Python asks for where processes start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

UNGUARDED = """
from experiments import Lab

print("runs")
lab = Lab("max_new_tokens=2", model="random", transport="process")
answer = lab.ask("Dear Ms. Lee, hello.")
print(len(answer.view.messages) == len(answer.messages))
"""

DEFINES = """
from functools import partial

from experiments import Lab
from smd_research.defenses.base import Client, Deployment
from smd_research.defenses.none import NoDefense, PlainDeployment, PlainPrepared, PlainProvider


class Mine(PlainProvider):
    pass


class Deployed(PlainDeployment):
    def __init__(self, bundle, boundary, shows):
        Deployment.__init__(self, bundle, boundary, Client(), shows)
        self._channel = boundary.open(self.client, partial(Mine, bundle))


class Prepared(PlainPrepared):
    def deploy(self, boundary):
        return Deployed(self.bundle, boundary, self.shows)


class Own(NoDefense):
    def prepare(self, bundle, public_text=None, seed=0, folder=None):
        made = super().prepare(bundle)
        return Prepared(**{name: getattr(made, name) for name in made.__dataclass_fields__})


print("runs")
"""

ASKS = """
lab = Lab("max_new_tokens=2", model="random", transport="process", defense=Own())
print(len(lab.ask("Dear Ms. Lee, hello.").ids))
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A script with the package on the path, as an installed wheel has it."""
    (folder / "script.py").write_text(script)
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_script_without_a_guard_starts_a_process(tmp_path: Path) -> None:
    done = run(UNGUARDED, tmp_path)
    assert (done.returncode, done.stdout) == (0, "runs\nTrue\n"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.slow
def test_a_class_of_the_script_runs_it_once_more_and_needs_the_guard(tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for line in ASKS.splitlines())
    done = run(f"{DEFINES}if __name__ == '__main__':{indented}", tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2"), done.stderr
    assert done.stdout.count("runs") == 2
    bare = run(DEFINES + ASKS, tmp_path)
    assert bare.returncode == 1
    assert "put what the script does under if __name__ == '__main__':" in bare.stderr
    assert "the untrusted process ended unexpectedly" in bare.stderr.splitlines()[-1]


CELLS = [
    "from experiments import Lab",
    'lab = Lab("max_new_tokens=2", model="random", transport="process", defense="none")',
    'answer = lab.ask("Dear Ms. Lee, hello.")\nanswer',
    'guess = lab.attack("reading", answer)\nguess',
    'again = Lab("max_new_tokens=2", model=lab.bundle).ask(answer.prompt)\nagain.messages',
    "lab.close()",
]


@pytest.mark.slow
def test_a_notebook_shows_it_and_starts_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [cell.outputs[-1].data["text/html"] for cell in book.cells[2:5]]
    assert 'class="untried secret"' in shown[0]
    assert 'class="recovered secret"' in shown[1]
    assert "<table" in shown[2]
    assert not [*tmp_path.iterdir()]


def test_to_import_the_package_is_light() -> None:
    code = "import sys, experiments; sys.exit(bool({'torch', 'hydra', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
