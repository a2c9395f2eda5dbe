"""The wheel, installed somewhere else, runs a cell from an unrelated folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def call(*words: str | Path, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing of the repository in it but the wheel; dependencies are those of this one."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages,) = home.glob("lib/python*/site-packages")
    # A line in a .pth file is searched after the environment's own packages, and its own .pth files are not read: an
    # editable install of the repository there stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def test_the_wheel_carries_everything_a_run_needs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"smd_research", "attacks", "experiments"}
    for needed in (
        "smd_research/conf/config.yaml",
        "smd_research/conf/experiment/demo.yaml",
        "smd_research/conf/papers.bib",
        "smd_research/models/embedded/model.safetensors",
        "smd_research/models/embedded/tokenizer.json",
        "smd_research/data/synthetic/grammar/clinical.txt",
        "smd_research/conf/board.yaml",
        "smd_research/reports/board/assets/index.html",
        "smd_research/reports/board/assets/scripts/matrix.js",
        "smd_research/reports/board/assets/echarts/echarts.min.js",
        "smd_research/reports/board/assets/echarts/LICENSE",
        "smd_research/reports/board/assets/echarts/NOTICE",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < 16 * 2**20


def test_the_installed_command_runs_a_cell_from_another_folder(elsewhere: Path, tmp_path: Path) -> None:
    smd = elsewhere / "bin" / "smd"
    quiet = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    options = {"cwd": tmp_path, "env": {**quiet, "OMP_NUM_THREADS": "1"}}
    where = call(elsewhere / "bin" / "python", "-c", "import experiments; print(experiments.__file__)", **options)
    assert where.startswith(str(elsewhere))
    assert "smd " in call(smd, "list", "defense", **options)
    assert "@article{gim2024confidential," in call(smd, "cite", "defense=smd", **options)
    words = ["defense=smd", "attack=prior", "n_prompts=2", "prompt_tokens=8", "max_new_tokens=4", "transport=process"]
    assert "token_accuracy" in call(smd, "run", *words, **options)
    (folder,) = (tmp_path / "results" / "cells").iterdir()
    assert (folder / "metrics.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


@pytest.mark.parametrize("name", ["smd", "smd-research"])
def test_the_command_has_the_name_of_the_distribution_too(name: str, elsewhere: Path, tmp_path: Path) -> None:
    """What a runner of packages starts that is given a wheel and no command."""
    quiet = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    shown = call(elsewhere / "bin" / name, "--help", cwd=tmp_path, env=quiet)
    assert "smd demo" in shown
    assert not list(tmp_path.iterdir())
