"""What README and the pages of the systems show works: every command composes, and the example of the service runs."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from experiments.commands.cli import COMMANDS
from experiments.commands.compare import parted
from experiments.composing.app import VERSION_BASE
from experiments.composing.overrides import check_choices, parse
from experiments.composing.products import expand
from smd_research.core.paths import conf_dir

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ("serving", "weights", "keyed-shaking", "dp-noise", "scenarios")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in GUIDES)]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
COMMAND_LINES = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (smd .+)$", TEXT, re.MULTILINE)]


@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_every_command_composes(words: list[str]) -> None:
    command, *rest = words
    assert command in COMMANDS
    if command in ("list", "train"):
        return
    rest = parted(rest)[1] if command == "compare" else rest
    check_choices(rest, conf_dir())
    overrides = [word for word in rest if "=" in word]
    config = {"run": "config"}.get(command, command)
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        for cell in expand([" ".join(overrides)], []) if parse(overrides) else [[]]:
            compose(config, overrides=cell)


@pytest.mark.slow
def test_the_example_of_the_service_runs(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    (example,) = re.findall(r"```py\n(.*?)```", TEXT, re.DOTALL)
    script.write_text(example)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(ast.literal_eval(done.stdout.splitlines()[-1])) == 2
