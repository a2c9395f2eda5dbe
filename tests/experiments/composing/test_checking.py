"""A configuration that cannot be is refused in one line before anything heavy is loaded, and leaves nothing."""

import contextlib
import itertools
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import broken as broken_module
import pytest
from broken import CONFLICTS, KINDS, broken, options, refusals
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from experiments.commands.cli import main as smd
from experiments.composing.cells import composed
from experiments.composing.checking import IdleOptionWarning, check_part
from experiments.composing.components import conditions, options_of
from experiments.composing.conditions import Condition
from experiments.composing.overrides import UsageError, groups
from smd_research.core.paths import conf_dir

WRONG = [
    ("n_prompts=ten", "n_prompts=ten: give a whole number, 1 to 1000000"),
    ("seed=2**3", "seed=2**3: give a whole number, 0 or more"),
    ("threads=-1", "threads=-1: give a whole number, 1 to 4096"),
    ("dtype=float16", "dtype=float16 is unknown: did you mean 'fp16'?"),
    ("transport=grpc", "transport=grpc is unknown: there is inproc, process, tcp"),
    ("prompt_tokens=600", "prompt_tokens=600: give a whole number, 1 to 512 (the model's context), or null"),
    ("max_new_tokens=512", "max_new_tokens=512: give a whole number, 0 or more, below 512 (the model's context)"),
    ("link=null", "link=null: write link=none"),
    ("model=null", "model=null: choose one of embedded, gguf, hub, local, random, smollm2"),
    ("defense=dp_text defense.survival=half", "defense.survival=half: give a number between 0 and 1, or null"),
    ("defense=dp_text defense.epsilon=true", "defense.epsilon=true: give a number above 0, or null"),
    ("defense=split defense.layer=99", "defense.layer=99: give a whole number, 0 to 5 (the model's layers)"),
    ("defense=slip defense.blocks=[0,9]", "defense.blocks=[0,9]: give a whole number, 0 or more, below 5"),
    ("attack=prior attack.trials=0", "attack.trials=0: give a whole number, 1 or more"),
    ("defense=dp_rewrite defense.low=2 defense.high=1", "defense.low=2: give a number below 1 (high), or null"),
    ("defense=dp_rewrite defense.low=2", "defense.low given needs defense.high given, which is null here"),
    ("defense=dp_rewrite defense.template=Say", "defense.template=Say: give text with {text} in it once, or null"),
    (
        "defense=dp_rewrite defense.reader_width=30",
        "defense.reader_width=30: give a whole number, 4 or more, multiple of 4",
    ),
    ("address=host:7000", "address given needs transport=tcp, which is inproc here"),
    ("defense=slip defense.field=narrow", "defense.field=narrow needs defense.bits=8 or 4, which is 16 here"),
    ("data.chat=true", "data.chat=true: the model's tokenizer has no chat template: leave data.chat=false"),
    ("+defense.no_such=1", "unknown key 'defense.no_such'"),
    ("~defense.audit +defense.audti=none", "unknown key 'defense.audti': did you mean 'audit'?"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[words for words, _ in WRONG])
@pytest.mark.parametrize("command", [["run"], ["run", "-m", "rerun=failed,missing"]], ids=["once", "sweep"])
def test_it_is_one_line_and_exit_2(
    command: list[str], words: str, said: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smd([*command, *words.split()]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert not list(in_folder.iterdir())


@pytest.mark.parametrize(
    "words",
    [["n_prompts=1,2,-3"], ["n_prompts=range(-1,3)"], ["defense=split", "defense.layer=0,1,6"], ["defense=none,smdd"]],
    ids=" ".join,
)
def test_every_cell_of_a_sweep_is_checked_before_the_first(words: list[str], in_folder: Path) -> None:
    assert smd(["run", "-m", *words]) == 2
    assert not list(in_folder.iterdir())


def test_a_table_says_so_before_its_first_cell(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["table", "table=inversion", "attack.work=much"]) == 2
    assert "attack.work=much: give a number, 1 or more" in capsys.readouterr().err
    assert not list(in_folder.iterdir())


@pytest.mark.slow
def test_sixty_wrong_commands(in_folder: Path) -> None:
    """Each a second of composing; more of them: ``itertools.islice(broken(seed), 500)``."""
    assert refusals(list(itertools.islice(broken(0), 60)), in_folder) == []


def test_wrong_commands_of_every_kind_load_no_torch(tmp_path: Path) -> None:
    commands = list(itertools.islice(broken(7), 3 * len(KINDS)))
    code = (
        f"import sys\nfrom pathlib import Path\nsys.path.insert(0, {str(Path(broken_module.__file__).parent)!r})\n"
        f"from broken import refusals\nprint(refusals({commands!r}, Path()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["[] False"], done.stdout + done.stderr


def nodes() -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for group, names in groups(conf_dir()).items():
        for name in names if group not in ("table", "experiment") else ():
            node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
            found.append((group, name, node.get("architecture", node)))
    return found


@pytest.mark.parametrize(("group", "name", "node"), nodes(), ids=[f"{group}={name}" for group, name, _ in nodes()])
def test_notes_name_options_that_there_are(group: str, name: str, node: dict[str, Any]) -> None:
    known = set(options_of(node))
    needs = [(when, one) for when, asked in (node.get("needs") or {}).items() for one in conditions(asked)]
    only = [one for said in (node.get("only") or {}).values() for one in conditions(said)]
    named = {*(node.get("takes") or {}), *(node.get("only") or {}), *(one.name for one in only)}
    named |= {Condition.of(when).name for when, _ in needs} | {one.name for _, one in needs}
    assert named <= known | ({"permute"} if "defaults" in node else set())


@pytest.mark.parametrize(
    ("name", "node"),
    [(f"{group}={name}", node) for group, name, node in nodes() if group in ("defense", "attack", "tuning")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_constructor_refuses_is_refused_before(name: str, node: dict[str, Any]) -> None:
    """Ranges stand in the YAML for the command line, in the constructor for Python: the two agree."""
    if not node.get("_target_") or "defaults" in node:
        return
    module, _, made = str(node["_target_"]).rpartition(".")
    build = getattr(import_module(module), made)
    node = {key: {"${wire_dtype}": "fp32"}.get(str(value), value) for key, value in node.items()}
    node = {key: 8 if str(value).startswith("${") else value for key, value in node.items()}
    passed = 0
    for option in set(options_of(node)) - {"_target_"}:
        for value in (-1, 0, 1, 7, 24, 1000, -0.5, 0.0, 0.5, 1.0, 1.5, 6e4, "no such word", None, []):
            changed = {**node, option: value}
            with contextlib.suppress(UsageError):
                check_part("part", changed, {})
                if {"tokens", "row_tokens"} <= set(changed) and changed["tokens"] < 2 * changed["row_tokens"]:
                    continue  # two rows at least: said by the constructor alone
                build(**{key: one for key, one in options_of(changed).items() if key != "_target_"})
                passed += 1
    assert passed or not set(options_of(node)) - {"_target_"}


@pytest.mark.parametrize("words", CONFLICTS, ids=" ".join)
def test_conflicts_are_said(words: list[str], in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["run", *words]) == 2
    assert " needs " in capsys.readouterr().err


IDLE = [
    (["defense=slip"], ["defense.energy=0.7"], "defense.rule=energy"),
    (["defense=dp_text", "defense.epsilon=3"], ["defense.survival=0.7"], "defense.epsilon=null"),
    (["defense=smd"], ["defense.audit_slack=2"], "defense.audit=norm or rank"),
    (["attack=bayes_token", "attack.mode=bayes"], ["attack.beam=3"], "attack.mode=beam"),
    (["defense=none"], ["tuning=lora"], "task given"),
    (["defense=none"], ["tuning.steps=7"], "task given"),
    (["task=note_type"], ["n_prompts=7"], "task=null"),
]


@pytest.mark.parametrize(("words", "without", "said"), IDLE, ids=[without[0] for _, without, _ in IDLE])
def test_a_word_without_effect_is_named_and_leaves_the_cell_as_it_is(
    words: list[str], without: list[str], said: str
) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        with pytest.warns(IdleOptionWarning, match=f"{without[0]} has no effect and is left out: .* with {said}"):
            odd = composed([*words, *without]).cell
        with warnings.catch_warnings():
            warnings.simplefilter("error", IdleOptionWarning)
            plain = composed(words).cell
    assert odd == plain


def test_a_word_with_effect_is_kept() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("error", IdleOptionWarning)
        ids = {
            composed(["defense=slip", "defense.rule=energy", f"defense.energy={share}"]).cell.id for share in (0.3, 0.7)
        }
    assert len(ids) == 2


def test_every_option_is_broken_by_the_generator() -> None:
    assert len(options()) > 200
    assert len({kind for kind, _ in itertools.islice(broken(0), len(KINDS))}) == len(KINDS)
