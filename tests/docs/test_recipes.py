"""The recipes of docs/adding.md work: written and applied in a copy of the tree, then run as they say."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
PARTS = ("attacks", "conf", "experiments", "smd_research", "tests")
MOST_FILES = {
    "An attack": 2,
    "An attack outside this repository": 2,
    "A new kind of secret": 5,
    "A defense": 3,
    "A metric": 2,
    "A model family": 1,
    "A table": 1,
    "A bench": 1,
}
"""Files a recipe may touch besides its test."""


@dataclass(frozen=True)
class Recipe:
    """A section with its fenced blocks, language first."""

    title: str
    blocks: tuple[tuple[str, str], ...]

    @property
    def files(self) -> dict[str, str]:
        """Whole files by path."""
        named = (re.match(r"# (\S+/\S+\.(?:py|yaml))\n(.*)", text, re.DOTALL) for _, text in self.blocks)
        return {found[1]: found[2] for found in named if found}

    @property
    def diffs(self) -> list[tuple[str, str, str]]:
        """Path, the lines that are replaced, and those in their place."""
        diffs = []
        for language, text in self.blocks:
            if language == "diff":
                head, *lines = text.splitlines(keepends=True)
                old, new = ("".join(line[1:] for line in lines if line[0] in (" ", sign)) for sign in "-+")
                diffs.append((head.split()[1], old, new))
        return diffs

    @property
    def commands(self) -> list[list[str]]:
        return [shlex.split(line) for kind, text in self.blocks if kind == "sh" for line in text.splitlines()]

    @property
    def touched(self) -> set[str]:
        paths = {*self.files, *(path for path, _, _ in self.diffs)}
        return {path for path in paths if not path.startswith("tests/")}


def recipes() -> list[Recipe]:
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    found = []
    for section in sections:
        title, _, body = section.partition("\n")
        found.append(Recipe(title, tuple(re.findall(r"^```(\w+)\n(.*?)^```", body, re.MULTILINE | re.DOTALL))))
    return found


RECIPES = {recipe.title: recipe for recipe in recipes()}


def copy_tree(to: Path) -> None:
    """The tree with hard links: what a recipe writes replaces a link, so that the original stays."""
    for part in PARTS:
        shutil.copytree(ROOT / part, to / part, copy_function=link, ignore=shutil.ignore_patterns("__pycache__"))
    link(str(ROOT / "pyproject.toml"), str(to / "pyproject.toml"))


def link(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:  # another file system
        shutil.copy2(source, to)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def apply(recipe: Recipe, to: Path) -> None:
    for name, text in recipe.files.items():
        assert not (to / name).exists(), f"{name} is there already: it needs a diff"
        write(to / name, text)
    for name, old, new in recipe.diffs:
        before = (to / name).read_text(encoding="utf-8")
        assert before.count(old) == 1, f"{name} has these lines {before.count(old)} times:\n{old}"
        write(to / name, before.replace(old, new))


class Shell:
    """Runs commands, each in a process of its own that is forked where the libraries are loaded already.

    To import them takes longer than what most commands do. Nothing of this repository is loaded there; what is compiled
    of a tree is kept for the next one, which lies in the same place.
    """

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, words: list[str], folder: Path) -> None:
        """A command as a recipe spells it, in a folder."""
        module = {"smd": "experiments", "pytest": "pytest"}[words[0]]
        extra = ["-q", "-p", "no:cacheprovider"] if words[0] == "pytest" else []
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps([str(folder), module, *words[1:], *extra]), file=self._server.stdin, flush=True)
        code, printed = json.loads(self._server.stdout.readline())
        assert code == 0, f"{shlex.join(words)}\n{printed}"


SERVER = """
import json, os, runpy, sys, tempfile
import hydra, pandas, pytest, scipy.stats, torch, transformers.models.llama.modeling_llama

for line in sys.stdin:
    folder, module, *words = json.loads(line)
    with tempfile.TemporaryFile() as printed:
        if (child := os.fork()) == 0:
            for stream, to in ((0, os.open(os.devnull, os.O_RDONLY)), (1, printed.fileno()), (2, printed.fileno())):
                os.dup2(to, stream)
            os.chdir(folder)
            os.environ["PYTHONPATH"] = folder
            sys.dont_write_bytecode, sys.pycache_prefix = False, os.path.join(os.path.dirname(folder), "compiled")
            sys.path.insert(0, folder)
            sys.argv = [module, *words]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        print(json.dumps([code, printed.read().decode(errors="replace")]), flush=True)
"""


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**kept, **offline, "PYTHONDONTWRITEBYTECODE": "1"},
        text=True,
    ) as server:
        yield Shell(server)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def tree(place: Path) -> Iterator[Path]:
    """Where a copy of the tree is made: one at a time, and always in the same place."""
    yield place / "tree"
    shutil.rmtree(place / "tree")


def test_every_recipe_is_known() -> None:
    assert RECIPES.keys() == MOST_FILES.keys()


@pytest.mark.parametrize("title", MOST_FILES)
def test_a_recipe_touches_few_files(title: str) -> None:
    assert 0 < len(RECIPES[title].touched) <= MOST_FILES[title]


@pytest.mark.slow
@pytest.mark.parametrize("title", MOST_FILES)
def test_a_recipe_works(title: str, tree: Path, shell: Shell) -> None:
    copy_tree(tree)
    apply(RECIPES[title], tree)
    for words in RECIPES[title].commands:
        shell.run(words, tree)
