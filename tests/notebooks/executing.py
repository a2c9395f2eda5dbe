"""Notebooks run from their first cell to their last in a kernel of their own, and written as they are committed."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

_SETTINGS = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Of the kernel: it imports this checkout, installed or not, works on one core, and fetches nothing."""

_LATEST_S = 600
"""Seconds on the clock that a cell may take, on a machine that may be busy; the limit is one of processor time."""


@dataclass(frozen=True)
class Executed:
    """A notebook with fresh outputs, and the processor seconds that it took, kernel and imports included."""

    notebook: NotebookNode
    cpu_s: float


def read(path: Path) -> NotebookNode:
    """A notebook as it is on disk."""
    return nbformat.read(path, as_version=4)


def execute(path: Path) -> Executed:
    """Run a notebook in its own folder; the file stays as it is."""
    notebook = read(path)
    client = NotebookClient(
        notebook, timeout=_LATEST_S, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    before = _children_s()
    with _environment():
        client.execute()
    return Executed(cleaned(notebook), _children_s() - before)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """A notebook without what differs from run to run: timestamps, versions, how a text came in pieces."""
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            cell.outputs = _joined(cell.outputs)
    return notebook


def written(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook as it is committed."""
    nbformat.write(notebook, path)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs in which all that was printed at once is one piece."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
