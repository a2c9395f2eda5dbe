"""Imports run downward only and never in a circle; three folders know Hydra; attacks and defenses never meet."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A module imports from lower floors and from its own room, never from another room of its floor.
FLOORS = (
    {"smd_research"},  # the version alone
    {"smd_research.core"},
    {"smd_research.boundary"},
    {"smd_research.models"},
    {"smd_research.data"},
    {"smd_research.mechanisms", "smd_research.training", "smd_research.metrics"},
    {"smd_research.defenses", "attacks", "smd_research.records"},
    {"smd_research.reports"},
    {"experiments.trials"},
    {"experiments.composing"},
    {"experiments.launching"},
    {"experiments.benches", "experiments.lab"},
    {"experiments.commands"},
    {"experiments"},  # python -m experiments
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
HYDRA = {"hydra", "omegaconf"}
KNOW_HYDRA = {"experiments.commands", "experiments.composing", "experiments.launching"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_of(path): path
    for package in ("smd_research", "attacks", "experiments")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def room_of(module: str) -> str | None:
    """The room a module belongs to, or None for a third party."""
    rooms = [room for room in LEVEL if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def imported(path: Path) -> set[str]:
    """The modules a file imports, wherever in it; ``from a import b`` names ``a.b`` where that is a module, else ``a``.

    What only a type checker reads counts too: two modules that name each other are one.
    """
    return named(path, ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def named(path: Path, nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that some nodes of a file import."""
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            inner = {f"{node.module}.{name.name}" for name in node.names}
            modules |= inner & SOURCES.keys()
            if not inner <= SOURCES.keys():
                modules.add(node.module)
    return modules


def violations(importer: str, modules: set[str]) -> list[str]:
    """What a module must not import."""
    wrong = []
    room = room_of(importer)
    assert room, f"{importer} stands on no floor"
    for module in sorted(modules):
        library, target = module.split(".")[0], room_of(module)
        if library in HYDRA and room not in KNOW_HYDRA:
            wrong.append(f"{module}: only {' and '.join(sorted(KNOW_HYDRA))} know Hydra")
        if library == "wandb" and not room.startswith("experiments"):
            wrong.append(f"{module}: only experiments reports there")
        if target and target != room and LEVEL[target] >= LEVEL[room]:
            wrong.append(f"{module}: {room} stands {'beside' if LEVEL[target] == LEVEL[room] else 'below'} {target}")
    return wrong


def circles(graph: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Circles among modules: a walk that meets a module again before it has left it; one a walk's way back."""
    found: list[tuple[str, ...]] = []
    left: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            found.append((*path[path.index(module) :], module))
        elif module not in left:
            for lower in sorted(graph[module] & graph.keys()):
                walk(lower, (*path, module))
            left.add(module)

    for module in graph:
        walk(module, ())
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_downward(module: str) -> None:
    assert violations(module, imported(SOURCES[module])) == []


def test_no_circles() -> None:
    assert circles({module: imported(path) for module, path in SOURCES.items()}) == []


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("smd_research.core.cell", "smd_research.models.bundle"),
        ("smd_research.boundary.view", "smd_research.models.bundle"),
        ("smd_research.models.bundle", "smd_research.data.prompts"),
        ("smd_research.data.tasks.rows", "smd_research.training.buckets"),
        ("smd_research.models.hooked", "smd_research.mechanisms.integers"),
        ("smd_research.mechanisms.privacy", "smd_research.metrics"),
        ("smd_research.training.loop", "smd_research.mechanisms"),
        ("attacks.base", "smd_research.defenses.smd"),
        ("smd_research.defenses.smd", "attacks.baselines.prior"),
        ("smd_research.records.store", "attacks.base"),
        ("smd_research.records.store", "smd_research.reports.points"),
        ("smd_research.reports.points", "experiments.trials.trial"),
        ("experiments.trials.trial", "experiments.composing.cells"),
        ("experiments.trials.trial", "hydra.utils"),
        ("experiments.benches.case", "omegaconf"),
        ("smd_research.models.sources", "hydra.utils"),
        ("smd_research.records.store", "wandb"),
        ("smd_research", "smd_research.core.cell"),
    ],
)
def test_the_rule_refuses(importer: str, module: str) -> None:
    assert violations(importer, {module})


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("smd_research.records.environment", "smd_research.__version__"),
        ("smd_research.data.tokenise", "smd_research.models.bundle"),
        ("attacks.prompts.bayes_token", "attacks.base"),
        ("experiments.composing.app", "hydra"),
        ("experiments.trials.sinks", "wandb"),
        ("experiments.__main__", "experiments.commands.cli"),
    ],
)
def test_the_rule_allows(importer: str, module: str) -> None:
    assert violations(importer, {module}) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [("b", "c", "b")]
    assert circles({"a": {"a"}}) == [("a", "a")]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": {"outside"}}) == []


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


def loaded_with(module: str) -> set[str]:
    """The modules that are imported when one is, third parties included: what stands at the top of each."""
    found, waiting = set[str](), [module]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        waiting += [one.rpartition(".")[0]] if "." in one else []
        if path := SOURCES.get(one):
            waiting += named(path, ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def test_a_cell_that_trains_nothing_does_not_wait_for_lightning() -> None:
    assert "torch" in loaded_with("experiments.trials.trial")
    assert "pytorch_lightning" in loaded_with("experiments.trials.tuning")
    assert "pytorch_lightning" not in loaded_with("experiments.trials.trial")
