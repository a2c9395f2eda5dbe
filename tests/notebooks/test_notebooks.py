"""Each notebook is executed once and held against what is committed; what it shows is then read from the file."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
from executing import NOTEBOOKS, ROOT, execute, read
from nbformat import NotebookNode
from outputs_alike import differences

SAMPLE = ROOT / "results" / "sample"
BUDGET_S = 60.0

sys.path.insert(0, str(ROOT / "tests" / "reports"))


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: NotebookNode) -> str:
    """All that a notebook shows, as text; of pictures their kind."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    data = [output.get("data", {"text": output.get("text")}) for output in outputs]
    return "\n".join(kind if kind == "image/png" else f"{text}" for one in data for kind, text in one.items())


def committed(name: str) -> str:
    return shown(read(ROOT / "notebooks" / f"{name}.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_and_say_nothing_of_the_machine(path: Path) -> None:
    notebook = read(path)
    assert [cell.execution_count for cell in code(notebook)] == [*range(1, len(code(notebook)) + 1)]
    assert "version" not in notebook.metadata.language_info
    assert not any("execution" in cell.metadata for cell in notebook.cells)
    text = shown(notebook)
    assert not re.search(r"(?:^|[\s\"'(=])/[\w.-]+/[\w.-]+", text, re.MULTILINE)
    assert not re.search(r"\b0x[0-9a-f]{6,}", text)
    assert not any(output.get("name") == "stderr" for cell in code(notebook) for output in cell.outputs)
    assert path.stat().st_size < 600_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_logic(path: Path) -> None:
    for cell in code(read(path)):
        tree = ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))
        logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, logic) for node in ast.walk(tree))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_showed(path: Path) -> None:
    fresh = execute(path)
    assert not [*differences(read(path), fresh.notebook)]
    assert fresh.cpu_s < BUDGET_S


@pytest.mark.slow
def test_attacks_vs_defenses_on_a_grid(tmp_path: Path) -> None:
    """The notebook holds for any records, here a synthetic grid."""
    from grid import records

    from smd_research.records import Store

    path = tmp_path / "notebooks" / "01_attacks_vs_defenses.ipynb"
    path.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / path.name, path)
    for record in records():
        Store(tmp_path / "results" / "sample").write(record)
    text = shown(execute(path).notebook)
    assert "partial_attention_inversion" in text
    assert text.count("image/png") == 3
    assert "Lee" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_an_attack_that_runs(path: Path) -> None:
    sources = [cell.source for cell in code(read(path))]
    assert "from experiments import Lab" in "".join(sources[:2])
    assert any("lab.attack(" in source for source in sources[:5])


def test_attacks_vs_defenses() -> None:
    text = committed("01_attacks_vs_defenses")
    assert text.count("image/png") == 2
    assert 'class="recovered secret"' in text
    assert "95 % interval" in text


def test_confidential_prompting() -> None:
    text = committed("02_confidential_prompting")
    assert text.count("image/png") == 4
    assert "' biopsy'" in text  # named by the span of the replies
    assert "partial_attention_inversion" in text
    assert "Which stream is real?" in text


def test_weight_decomposition() -> None:
    text = committed("03_weight_decomposition")
    assert text.count("image/png") == 5
    assert "overlap 1.00" in text
    assert "A device that tampers" in text
    assert "failed" not in text
    assert "| ... |" not in text


def test_keyed_shaking() -> None:
    text = committed("04_keyed_shaking")
    assert text.count("image/png") == 2
    assert "100% of the ids recovered by their rows' lengths" in text
    assert "A model tuned under a key" in text
    assert "private-0" in text
    assert "failed" not in text
    assert "| ... |" not in text


def test_dp_noise_runs_a_small_attack() -> None:
    """Model, channel, attack and audit are run, and the promise is seen to hold."""
    text = committed("05_dp_noise")
    assert text.count("image/png") == 1
    assert "metric-DP: epsilon=" in text
    assert all(f"{mode}, " in text for mode in ("nearest", "bayes", "beam"))
    assert "epsilon that would have done" in text
    assert ": holds" in text


@pytest.mark.parametrize(("folder", "most"), [("weight_decomposition", 1_000_000), ("keyed_shaking", 1_500_000)])
def test_the_samples_that_are_read_are_small(folder: str, most: int) -> None:
    assert sum(path.stat().st_size for path in (SAMPLE / folder).rglob("*")) < most
