"""What somebody is told who does not know the words yet: one line, or what there is."""

from pathlib import Path

import pytest

from experiments.commands.bench import names
from experiments.commands.cli import main as smd
from experiments.composing.catalogue import NOTES, docline, explained
from experiments.composing.overrides import groups
from smd_research.core.paths import conf_dir


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "defense", "smd"], "'defense' lacks its value: write defense=smd"),
        (["run", "defense=smd", "n_prompts"], "'n_prompts' lacks its value: write n_prompts=VALUE"),
        (["run", "--defense", "smd"], "'--defense' is no flag: write defense=smd"),
        (["run", "--defense=smd"], "'--defense=smd' is no flag: write defense="),
        (["run", "model=local"], "model=local needs model.path=DIR"),
        (["unpack"], "this command needs packed=FILE"),
        (["run", "data=csv"], "data=csv needs data.path=FILE"),
        (["table"], "table=NAME is needed; there is"),
        (["bench"], "bench=NAME is needed; there is"),
        (["edge_device"], "unknown command 'edge_device': did you mean 'smd run experiment=edge_device'?"),
        (["smd_attacks"], "did you mean 'smd table table=smd_attacks'?"),
        (["run", "hydra/launcher=slurm"], "hydra/launcher=slurm takes the cells of a sweep: add -m"),
        (
            ["train", "-m", "hydra/launcher=ray", "seed=0,1"],
            "hydra/launcher=ray takes the cells of smd run and smd table",
        ),
        (["defense=smd"], "unknown command 'defense=smd': did you mean 'smd run defense=smd'?"),
        (["table=timing"], "did you mean 'smd table table=timing'?"),
        (["defense"], "did you mean 'smd list defense'?"),
        (["rnu"], "did you mean 'run'?"),
        (["list", "defens"], "unknown group 'defens': did you mean 'defense'?"),
        (["list", "defense=sdm"], "unknown defense 'sdm': did you mean 'smd'?"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_gets_one_line_and_leaves_nothing(
    words: list[str], said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd(words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("error: ") == 1
    assert "Traceback" not in shown.err
    assert "Error executing job" not in shown.err
    assert shown.out == ""
    assert not list(in_folder.iterdir())


def test_commands_that_take_a_name_say_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    smd(["bench"])
    benches = capsys.readouterr().err.splitlines()[1:]
    assert [line.split()[0] for line in benches] == names()
    smd(["table"])
    tables = capsys.readouterr().err.splitlines()[1:]
    assert [line.split()[0] for line in tables] == groups(conf_dir())["table"]
    assert all(len(line.split()) > 4 and "``" not in line for line in [*benches, *tables])


def test_the_values_of_an_option_are_listed_with_their_comments(capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["list", "defense=smd"]) == 0
    shown = capsys.readouterr().out
    assert "defense.audit=none" in shown
    assert "none | schedule | norm | rank" in shown
    assert "_target_" not in shown
    assert smd(["list", "defense"]) == 0
    assert "Prompt Obfuscation" in capsys.readouterr().out


def test_a_folder_of_ones_own_is_listed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "defense").mkdir()
    (tmp_path / "defense" / "mine.yaml").write_text(
        "# A defense of one's own\n_target_: mine.Mine\nstrength: 3 # of it\n"
    )
    assert smd(["list", "-cd", str(tmp_path), "defense"]) == 0
    shown = capsys.readouterr().out
    assert "A defense of one's own" in shown
    assert "Prompt Obfuscation" in shown
    assert smd(["list", f"--config-dir={tmp_path}", "defense=mine"]) == 0
    assert "defense.strength=3" in capsys.readouterr().out


def test_every_option_of_every_part_is_read(tmp_path: Path) -> None:
    for group in ("attack", "defense", "data", "link", "model", "task", "tuning"):
        for name in groups(conf_dir())[group]:
            text = (conf_dir() / group / f"{name}.yaml").read_text()
            lines = [line for line in text.splitlines() if line[:1].isalpha()]
            keys = {line.split(":")[0] for line in lines} - {"_target_", "defaults", *NOTES}
            assert {key for key, _, _ in explained(conf_dir() / group / f"{name}.yaml")} == keys
    (tmp_path / "module.py").write_text('"""One ``line``.\n\nMore."""\n')
    assert docline(tmp_path / "module.py") == "One line."


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["--version"]) == 0
    assert capsys.readouterr().out.startswith("smd-research ")
