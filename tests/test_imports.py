"""Imports run downward only; only ``experiments`` knows Hydra; attacks and defenses never meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Higher floors may import lower ones. Modules of one floor may import each other unless SEPARATE says otherwise.
FLOORS = {
    "experiments": 6,
    "attacks": 4,
    "smd_research.defenses": 4,
    "smd_research.metrics": 4,
    "smd_research.records": 4,
    "smd_research.reports": 5,
    "smd_research.training": 3,
    "smd_research.mechanisms": 3,
    "smd_research.models": 3,
    "smd_research.data": 3,
    "smd_research.boundary": 2,
    "smd_research.core": 1,
    "smd_research": 0,
}
SEPARATE = [
    {"attacks", "smd_research.defenses"},
    {"attacks", "smd_research.records"},
    {"smd_research.defenses", "smd_research.records"},
]
ONLY_EXPERIMENTS = {"hydra", "omegaconf", "wandb"}
# Metrics score what data and guesses are made of, so they may read the nouns of lower floors only.
SOURCES = sorted(
    path for package in ("smd_research", "attacks", "experiments") for path in (ROOT / package).rglob("*.py")
)


def part(module: str) -> str | None:
    """The floor's name a module belongs to, or None for a third party."""
    return next((name for name in FLOORS if module == name or module.startswith(f"{name}.")), None)


def imported(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            modules |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return modules


def violations(importer: str, modules: set[str]) -> list[str]:
    """What a module of part ``importer`` must not import."""
    wrong = []
    for module in sorted(modules):
        if module.split(".")[0] in ONLY_EXPERIMENTS and importer != "experiments":
            wrong.append(f"{module}: only experiments imports it")
        target = part(module)
        if target is None or target == importer:
            continue
        if FLOORS[target] > FLOORS[importer]:
            wrong.append(f"{module}: upward")
        if {importer, target} in SEPARATE:
            wrong.append(f"{module}: {importer} and {target} never import each other")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    importer = part(module)
    assert importer
    assert violations(importer, imported(path)) == []


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("smd_research.core", "smd_research.models.bundle"),
        ("attacks", "smd_research.defenses.smd"),
        ("smd_research.defenses", "attacks.baselines.prior"),
        ("smd_research.models", "hydra.utils"),
        ("smd_research.metrics", "experiments.commands.run"),
    ],
)
def test_the_rule_refuses(importer: str, module: str) -> None:
    assert violations(importer, {module})


def test_nothing_heavy_is_imported_by_the_command() -> None:
    """A sweep whose cells are all known must not wait for torch: the doors to the commands import nothing heavy."""
    heavy = {"torch", "transformers", "pandas", "matplotlib", "pyarrow", "scipy", "numpy"}
    doors = ("commands/cli", "commands/run", "commands/list", "commands/sweep")
    for name in (*doors, "composing/app", "composing/overrides", "composing/cells"):
        tree = ast.parse((ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8"))
        top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not {module.split(".")[0] for module in top} & heavy, name


def test_reading_records_does_not_wait_for_torch() -> None:
    code = "import sys, smd_research.records; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
