"""What a command line may say, and the near miss when it says something else."""

import errno
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from experiments.commands.cli import main as smd
from experiments.composing.app import launch
from experiments.composing.overrides import UsageError, check_choices, check_words, gathered, nearest
from smd_research.core.paths import conf_dir


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    code = smd(list(words))
    return code, capsys.readouterr().err.strip().splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "defense=smdd"], "unknown defense 'smdd': did you mean 'smd'?"),
        (["run", "-m", "defense=none,smdd"], "unknown defense 'smdd': did you mean 'smd'?"),
        (["run", "results_dir=~/x"], """results_dir=~/x cannot be read: write 'results_dir="~/x"'"""),
        (["publish", "title=a (b"], """title=a (b cannot be read: write 'title="a (b"'"""),
        (["publish", "title=a'(b"], "title=a'(b cannot be read: write KEY=VALUE"),
        (["run", "attack=priors"], "unknown attack 'priors': did you mean 'prior'?"),
        (["run", "n_promts=3"], "unknown key 'n_promts': did you mean 'n_prompts'?"),
        (["run", "defense.wire_dtpe=fp16"], "unknown key 'defense.wire_dtpe': did you mean 'defense.wire_dtype'?"),
        (["run", "defnse=none"], "unknown key 'defnse': did you mean 'defense'?"),
        (["run", "only=smd"], "unknown key 'only': '--help' lists them"),
        (["run", "defense.version=9"], "defense.version is no option: a part's own file says it"),
        (["run", "+attack.cites=own"], "attack.cites is no option"),
        (["run", "attack=random", "attack._target_=attacks.baselines.reading.Reading"], "attack._target_ is no option"),
        (["run", "-m", "defense.later.audit=none,full"], "defense.later.audit is no option"),
        (["run", "seed=[1,"], "[1,"),
        (["bench", "bench=smd_decod"], "unknown bench 'smd_decod': did you mean 'smd_decode'?"),
        (["table", "table=inversio"], "unknown table 'inversio': did you mean 'inversion'?"),
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["list", "defence"], "unknown group 'defence': did you mean 'defense'?"),
    ],
)
def test_a_wrong_word_gives_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], in_folder: Path, words: list[str], expected: str
) -> None:
    code, lines = run(capsys, *words)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert expected in lines[0]


@pytest.mark.parametrize("command", ["run", "bench", "table"])
def test_help_shows_examples_and_leaves_with_0(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert smd([command, "--help"]) == 0
    assert f"smd {command} " in capsys.readouterr().out


def test_list_describes_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["list", "link", "logger"]) == 0
    shown = capsys.readouterr().out
    assert "link=" in shown
    assert "wandb" in shown
    assert "defense=" not in shown


def test_overrides_may_stand_on_both_sides_of_a_flag() -> None:
    assert gathered(["a=1", "-m", "b=2", "-cd", "conf", "c=3"]) == ["-m", "-cd", "conf", "a=1", "b=2", "c=3"]


def test_options_of_a_users_own_folder_are_known(tmp_path: Path) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "mine.yaml").write_text("# Mine\n_target_: mine.Mine\n")
    check_choices(["--config-dir", str(tmp_path), "attack=mine"], conf_dir())
    with pytest.raises(UsageError, match="unknown attack 'mine'"):
        check_choices(["attack=mine"], conf_dir())


def test_a_users_own_option_is_not_passed_over_for_one_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "random.yaml").write_text("# Mine\n_target_: mine.Mine\n")
    with pytest.raises(UsageError, match=r"attack/random\.yaml has the name of another attack"):
        check_choices(["-cd", str(tmp_path), "attack=prior,random"], conf_dir())
    check_choices(["-cd", str(tmp_path), "attack=prior"], conf_dir())
    check_choices(["-cd", str(conf_dir()), "attack=random"], conf_dir())


def test_every_option_of_a_list_is_looked_up() -> None:
    check_choices(["experiment=[demo,smoke]"], conf_dir())
    with pytest.raises(UsageError, match="unknown experiment 'smok': did you mean 'smoke'"):
        check_choices(["experiment=[demo,smok]"], conf_dir())


def test_nearest_names_the_options_when_nothing_is_near() -> None:
    assert nearest("xyz", ["lan", "wan"]) == "there is lan, wan"


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import sys

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before, path = list(sys.argv), list(sys.path)
    seen = []
    assert launch(lambda cfg: seen.append(cfg.seed), "config", "smd run", ["seed=7"]) == 0
    assert seen == [7]
    assert sys.argv == before
    assert sys.path == path
    assert "HYDRA_FULL_ERROR" not in os.environ


@pytest.mark.parametrize(
    "words", [["--info", "defaults"], ["-cd", "/tmp", "seed=1"], ["--cfg", "job", "~trainer.devices"]]
)
def test_the_value_of_a_flag_needs_no_equals_sign(words: list[str]) -> None:
    check_words(words, conf_dir())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "results/bench"), "cannot write results/bench: Read-only"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: cannot write: No space left on device"),
        (BrokenProcessPool("a worker"), "the process of a job was killed"),
    ],
    ids=["read-only", "full", "killed"],
)
def test_what_a_machine_refuses_is_one_line(
    error: Exception, said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(cfg: object) -> None:
        raise error

    assert launch(refuse, "report", "smd report", []) == 1
    assert said in capsys.readouterr().err


def test_an_error_that_nobody_expected_keeps_its_trace(in_folder: Path) -> None:
    def fail(cfg: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        launch(fail, "report", "smd report", [])
