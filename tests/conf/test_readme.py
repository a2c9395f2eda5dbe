"""What README shows works: every command composes, and the example attack runs."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.commands.cli import COMMANDS
from experiments.commands.cli import main as smd
from experiments.commands.table import expand
from experiments.composing.app import VERSION_BASE
from experiments.composing.overrides import check_choices, parse
from smd_research.core.paths import conf_dir
from smd_research.records import load

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
COMMAND_LINES = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (smd .+)$", README, re.MULTILINE)]


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(text)


@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_every_command_of_the_readme_composes(words: list[str]) -> None:
    command, *rest = words
    assert command in COMMANDS
    if "-cd" in rest or command in ("list", "train"):
        return
    check_choices(rest, conf_dir())
    overrides = [word for word in rest if "=" in word]
    config = {"run": "config"}.get(command, command)
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        for cell in expand([" ".join(overrides)], []) if parse(overrides) else [[]]:
            compose(config, overrides=cell)


def test_the_example_attack_runs_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_conf" / "attack").mkdir(parents=True)
    (tmp_path / "my_conf" / "attack" / "repeat.yaml").write_text(block("yaml"))
    (tmp_path / "my_attack.py").write_text(block("python"))
    monkeypatch.chdir(tmp_path)
    (example,) = (words for words in COMMAND_LINES if "-cd" in words)
    assert smd([*example, "n_prompts=2", "prompt_tokens=6", "max_new_tokens=3"]) == 0
    assert load("results")["attack"].unique().tolist() == ["repeat"]


@pytest.mark.slow
def test_the_example_of_the_service_runs(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(block("py"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(ast.literal_eval(done.stdout.splitlines()[-1])) == 2
