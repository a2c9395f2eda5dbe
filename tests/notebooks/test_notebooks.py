import ast
import shutil
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SAMPLE = ROOT / "results" / "sample"
PROMPTING = SAMPLE / "confidential_prompting"
DECOMPOSITION = SAMPLE / "weight_decomposition"
SHAKING = SAMPLE / "keyed_shaking"

sys.path.insert(0, str(ROOT / "tests" / "reports"))


def sources(path: Path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel imports the package from this checkout, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def execute(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_hold_no_logic(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    for source in sources(path):
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
        logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, logic) for node in ast.walk(tree))


@pytest.mark.slow
@pytest.mark.usefixtures("_checkout")
def test_attacks_vs_defenses_on_a_grid(tmp_path: Path) -> None:
    """The notebook holds for any records, here a synthetic grid."""
    from grid import records

    from smd_research.records import Store

    path = tmp_path / "notebooks" / "01_attacks_vs_defenses.ipynb"
    path.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / path.name, path)
    for record in records():
        Store(tmp_path / "results" / "sample").write(record)
    shown = outputs(execute(path))
    assert "partial_attention_inversion" in shown
    assert shown.count("image/png") == 2
    assert "Lee" in shown


@pytest.mark.slow
@pytest.mark.usefixtures("_checkout")
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="results/sample is not in this checkout")
def test_attacks_vs_defenses_on_the_sample() -> None:
    started = time.monotonic()
    shown = outputs(execute(ROOT / "notebooks" / "01_attacks_vs_defenses.ipynb"))
    assert "image/png" in shown
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.usefixtures("_checkout")
@pytest.mark.skipif(not PROMPTING.is_dir(), reason="results/sample/confidential_prompting is not in this checkout")
def test_confidential_prompting_on_the_sample() -> None:
    shown = outputs(execute(ROOT / "notebooks" / "02_confidential_prompting.ipynb"))
    assert shown.count("image/png") == 2
    assert "partial_attention_inversion" in shown
    assert "Which stream is real?" in shown


@pytest.mark.slow
@pytest.mark.usefixtures("_checkout")
@pytest.mark.skipif(not DECOMPOSITION.is_dir(), reason="results/sample/weight_decomposition is not in this checkout")
def test_weight_decomposition_on_the_sample() -> None:
    shown = outputs(execute(ROOT / "notebooks" / "03_weight_decomposition.ipynb"))
    assert shown.count("image/png") == 2
    assert "A device that tampers" in shown
    assert "failed" not in shown
    assert "| ... |" not in shown


@pytest.mark.skipif(not DECOMPOSITION.is_dir(), reason="results/sample/weight_decomposition is not in this checkout")
def test_the_sample_of_weight_decomposition_is_small() -> None:
    assert sum(path.stat().st_size for path in DECOMPOSITION.rglob("*")) < 1_000_000


@pytest.mark.slow
@pytest.mark.usefixtures("_checkout")
@pytest.mark.skipif(not SHAKING.is_dir(), reason="results/sample/keyed_shaking is not in this checkout")
def test_keyed_shaking_on_the_sample() -> None:
    shown = outputs(execute(ROOT / "notebooks" / "04_keyed_shaking.ipynb"))
    assert shown.count("image/png") == 1
    assert "A model tuned under a key" in shown
    assert "private-0" in shown
    assert "failed" not in shown
    assert "| ... |" not in shown


@pytest.mark.skipif(not SHAKING.is_dir(), reason="results/sample/keyed_shaking is not in this checkout")
def test_the_sample_of_keyed_shaking_is_small() -> None:
    assert sum(path.stat().st_size for path in SHAKING.rglob("*")) < 1_500_000


@pytest.mark.slow
@pytest.mark.usefixtures("_checkout")
def test_dp_noise_runs_a_small_attack() -> None:
    """No records: model, channel, attack and audit are run, and the promise is seen to hold."""
    shown = outputs(execute(ROOT / "notebooks" / "05_dp_noise.ipynb"))
    assert shown.count("image/png") == 1
    assert "metric-DP: epsilon=" in shown
    assert all(f"{mode}, " in shown for mode in ("nearest", "bayes", "beam"))
    assert "epsilon that would have done" in shown
    assert ": holds" in shown
