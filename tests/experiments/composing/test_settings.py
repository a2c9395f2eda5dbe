"""A setting that cannot be is refused before anything heavy is loaded, and leaves nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.commands.cli import main as smd
from experiments.composing.overrides import UsageError
from experiments.composing.settings import SETTINGS, one_of, whole
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.paths import conf_dir

WRONG = [
    ("n_prompts=ten", "n_prompts=ten: give a whole number, 1 or more"),
    ("n_prompts=0", "n_prompts=0: give a whole number, 1 or more"),
    ("n_prompts=true", "n_prompts=true: give a whole number"),
    ("prompt_tokens=0", "prompt_tokens=0: give a whole number, 1 or more, or null"),
    ("max_new_tokens=-1", "max_new_tokens=-1: give a whole number, 0 or more"),
    ("seed=abc", "seed=abc: give a whole number"),
    ("seed=1.5", "seed=1.5: give a whole number"),
    ("'seed=2**3'", "seed=2**3: give a whole number"),
    ("threads=-1", "threads=-1: give a whole number, 1 or more"),
    ("dtype=float16", "dtype=float16 is unknown: did you mean"),
    ("wire_dtype=fp7", "wire_dtype=fp7 is unknown"),
    ("transport=grpc", "transport=grpc is unknown: there is inproc, process, tcp"),
    ("device=null", "device=null: give a text"),
    ("rerun=sometimes", "rerun=sometimes is unknown"),
    ("record_texts=maybe", "record_texts=maybe: give true or false"),
    ("address=host:7000", "address=host:7000 needs transport=tcp, not inproc"),
]


@pytest.mark.parametrize(("word", "said"), WRONG, ids=[word for word, _ in WRONG])
@pytest.mark.parametrize("command", [["run"], ["run", "-m", "attack=random,prior"]], ids=["once", "sweep"])
def test_it_is_one_line_and_exit_2(
    command: list[str], word: str, said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd([*command, "defense=none", word.strip("'")]) == 2
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if line.startswith("error: ")] == [shown.err.strip()]
    assert said in shown.err
    assert "address" in word or not list(in_folder.iterdir()), "Hydra has made its folder when a conflict is seen"


@pytest.mark.parametrize("values", ["1,2,-3", "1,ten", "range(-1,3)"])
def test_every_value_of_a_sweep_is_checked(values: str, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["run", "-m", "defense=none", f"n_prompts={values}"]) == 2
    assert "give a whole number, 1 or more" in capsys.readouterr().err
    assert not list(in_folder.iterdir())


@pytest.mark.parametrize("word", ["n_prompts=ten", "rerun=sometimes"])
def test_a_table_says_so_before_its_first_cell(word: str, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["table", "table=inversion", word]) == 2
    assert word.replace("=ten", "=ten:") in capsys.readouterr().err
    assert not list(in_folder.iterdir())


def test_torch_is_not_loaded_for_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom experiments.commands.cli import main\n"
        "code = main(['run', 'n_prompts=ten'])\nprint(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["2", "False"]


def test_checks_say_what_is_wrong() -> None:
    assert whole(1)(1) == whole(1, null=True)(None) == one_of("a", "b")("a") == ""
    assert whole(1)(None)
    assert whole(0)(False)
    assert "there is a, b" in one_of("a", "b")("xyz")
    for transport in TRANSPORTS:
        assert SETTINGS["transport"](transport) == ""
    assert issubclass(UsageError, Exception)


def test_every_setting_is_one_of_some_command() -> None:
    texts = [(conf_dir() / f"{name}.yaml").read_text() for name in ("config", "bench", "serve", "table", "train")]
    for name in SETTINGS:
        assert any(f"\n{name}:" in text for text in texts), name
