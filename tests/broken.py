"""Commands that are wrong by construction: the real configuration, with one word of a command broken."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from omegaconf import OmegaConf

from experiments.commands.cli import main as smd
from experiments.composing.components import NOTES
from experiments.composing.overrides import groups
from smd_research.core.paths import conf_dir

NEEDED = {
    "model=local": ["model.path=/nowhere"],
    "model=gguf": ["model.path=/nowhere.gguf"],
    "model=hub": ["model.name=gpt2"],
    "data=csv": ["data.path=/nowhere.csv"],
    "data=jsonl": ["data.path=/nowhere.jsonl"],
    "data=text": ["data.path=/nowhere.txt"],
    "data=hub": ["data.name=nobody/nothing"],
    "task=file": ["task.train_path=/nowhere.csv"],
}
"""What an option asks for besides."""

GROUPS = ("defense", "attack", "model", "data", "link", "task", "tuning", "logger")

CONFLICTS = (
    ["address=host:7000"],
    ["transport=process", "address=host:7000"],
    ["defense=dp_hidden", "defense.layer=1"],
    ["defense=dp_hidden", "defense.layer=1", "defense.epsilon=1", "defense.unit=token"],
    ["defense=dp_hidden", "defense.unit=sequence"],
    ["defense=dp_hidden", "defense.mechanism=dchi", "defense.unit=sequence", "defense.epsilon=1"],
    ["defense=dp_hidden", "defense.mechanism=dchi", "defense.layer=1", "defense.epsilon=1"],
    ["defense=split_denoise", "defense.survival=null"],
    ["defense=dp_text", "defense.survival=null"],
    ["defense=slip", "defense.bits=null"],
    ["defense=slip", "defense.field=narrow"],
    ["defense=slip", "defense.masking=float"],
    ["defense=slip", "defense.bank=folder"],
    ["defense=slip", "defense.bank_folder=/tmp/x"],
    ["defense=smd", "defense.noise_epsilon=1", "defense.noise_multiplier=1.1"],
    ["defense=shaking", "defense.key_file=k", f"defense.secret={'0a' * 16}"],
)
"""Words that are right alone and wrong together."""


@dataclass(frozen=True)
class Option:
    """An option of a component, with the words that choose its component, and its default."""

    chosen: tuple[str, ...]
    name: str
    default: Any
    takes: str

    @property
    def free(self) -> bool:
        """Whether any text will do."""
        return isinstance(self.default, str) and not self.takes


@lru_cache(maxsize=1)
def options() -> tuple[Option, ...]:
    """Every option of every component of ``conf``, and the settings of ``smd run``."""
    found = []
    for group, names in groups(conf_dir()).items():
        for name in names if group in GROUPS else ():
            node = _read(f"{group}/{name}")
            chosen = (
                f"{group}={name}",
                *NEEDED.get(f"{group}={name}", ()),
                *(["task=note_type"] * (group == "tuning")),
            )
            takes = node.get("takes") or {}
            for option, default in node.items():
                if option not in ("_target_", "defaults", *NOTES):
                    found.append(Option(chosen, f"{group}.{option}", default, str(takes.get(option, ""))))
    top = _read("config")
    for name in ("n_prompts", "prompt_tokens", "max_new_tokens", "seed", "threads"):
        found.append(Option((), name, top[name], "1 or more"))
    for name in ("transport", "wire_dtype", "dtype", "rerun"):
        found.append(Option((), name, top[name], "a | b"))
    return tuple(found)


def _read(name: str) -> Mapping[str, Any]:
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"))
    return node  # as Hydra reads it: 1e-5 is a number


def _number(option: Option) -> bool:
    return isinstance(option.default, int | float) and not isinstance(option.default, bool)


def _wrong_type(rng: Random, option: Option) -> str:
    words = ["{a:1}", "[[1]]", "[{a:1},2]"]
    if _number(option):
        words += ["half", "true", "nan", "ten", "2**3", "١٢", "1e", "0x1g", "[1,2]", "null", "ünïcödé", "''", "1e999"]
    elif isinstance(option.default, bool):
        words += ["7", "yes please", "null", "[true]", "1.5"]
    elif not option.free:
        words += ["[no]", "no such word", "☃", "-1.5e300"]
    return rng.choice(words)


def _out_of_range(rng: Random, option: Option) -> str:
    ranged = any(word in option.takes for word in ("or more", "above", "between", " to "))
    return rng.choice(["-1", "-7.5", "-1e9", str(-(10**30))]) if ranged else _wrong_type(rng, option)


def _value(break_it: Callable[[Random, Option], str]) -> Callable[[Random], list[str]]:
    def command(rng: Random) -> list[str]:
        option = rng.choice(options())
        return ["run", *option.chosen, f"{option.name}={break_it(rng, option)}"]

    return command


def _of_a_sweep(rng: Random) -> list[str]:
    option = rng.choice([option for option in options() if _number(option) or option.takes])
    good = option.default if option.default not in (None, "???") else 1
    if isinstance(good, list) or "${" in str(good):
        good = "null"
    values = [str(good), str(good), _out_of_range(rng, option)]
    rng.shuffle(values)
    return ["run", "-m", *option.chosen, f"{option.name}={','.join(values)}"]


def _typo(rng: Random) -> list[str]:
    option = rng.choice(options())
    name, at = list(option.name), rng.randrange(len(option.name))
    name[at : at + 1] = [[], ["z", name[at]], ["q"]][rng.randrange(3)]
    key = "".join(name)
    known = {one.name for one in options() if one.chosen == option.chosen}
    return ["run", *option.chosen, f"{key if key not in known and key else 'no_key'}=1"]


def _unknown_option(rng: Random) -> list[str]:
    group = rng.choice(GROUPS)
    odd = rng.choice(["smdd", "nonee", "'', x", "null", "[smd,po]", "1", "{a:b}", "..", "../config", "ß", "-"])
    return ["run", *(["-m"] * rng.randrange(2)), f"{group}={odd}"]


def _syntax(rng: Random) -> list[str]:
    option = rng.choice(options())
    broken = [
        option.name,
        f"{option.name}='0.5",
        f'{option.name}="1',
        f"{option.name}=[1,",
        f"{option.name}={{a:1",
        f"{option.name}=1]",
        f"{option.name}=${{nothing}}",
        f"{option.name}=${{oc.env:NO_SUCH_VARIABLE}}",
        f"{option.name}=${{",
        f"{option.name}==1",
        f"+{option.name}.deeper=1",
        f"~{option.name}x",
        f"+{option.name.rpartition('.')[0] or 'defense'}.no_such_option=1",
        f"{option.name}=choice(",
        f"{option.name}=range(1,2",
        f"={option.name}",
        f"@{option.name}=1",
        f"{option.name}@=1",
        "",
        "=",
        "--no-such-flag",
        f"--{option.name}=1",
    ]
    return ["run", *option.chosen, rng.choice(broken)]


def _bad_sweep(rng: Random) -> list[str]:
    words = ["seed=1,2", "seed=choice(1,2)", "defense=smd,po", "n_prompts=range(1,3)"]
    swept = ["seed=1,,2", "seed=range(a,b)", "seed=range()", "seed=1,2,x", "seed=choice(1,two)", "dtype=fp32,fp7"]
    swept += ["n_prompts=range(-2,1)", "seed=glob(*", "defense=smd,smdd", "threads=interval(1,2)", "seed=1,[2"]
    return ["run", rng.choice(words)] if rng.randrange(3) == 0 else ["run", "-m", rng.choice(swept)]


def _conflict(rng: Random) -> list[str]:
    return ["run", *(["-m", "seed=0,1"] * rng.randrange(2)), *rng.choice(CONFLICTS)]


def _other_command(rng: Random) -> list[str]:
    table = ["table", rng.choice(["table=inversion", "table=attacks_vs_defenses"])]
    bad = [
        [*table, rng.choice(["n_prompts=ten", "seed=-1", "size=huge", "link=null", "nprompts=3", "rerun=perhaps"])],
        ["table", rng.choice(["table=inversio", "tabel=inversion", "table=", "table=[a]", "table"])],
        ["bench", rng.choice(["bench=smd_decod", "repeats=0", "only=[", "bench"])],
        ["bench", "bench=smd_decode", rng.choice(["repeats=none", "size=medium", "threads=-1", "seed=x", "only"])],
        [
            "serve",
            rng.choice(["address=host", "tap=perhaps", "timeout_s=-1", "connections=-1", "defense.send_order=q"]),
        ],
        ["serve", rng.choice(["defense=smdd", "model=null", "idle_s=long", "dtype=fp64", "threads=many"])],
        ["report", rng.choice(["prompts=0", "prompts=all", "prmpts=1", "results_dir=null", "prompts"])],
        ["list", rng.choice(["defens", "defense=smdd"])],
        [rng.choice(["rnu", "tables", "RUN", "smd", "defense=smd", "ünïcödé"])],
    ]
    return rng.choice(bad)


KINDS: Mapping[str, Callable[[Random], list[str]]] = {
    "wrong type": _value(_wrong_type),
    "out of range": _value(_out_of_range),
    "one value of a sweep": _of_a_sweep,
    "misspelt key": _typo,
    "unknown option": _unknown_option,
    "syntax": _syntax,
    "bad sweep": _bad_sweep,
    "conflict": _conflict,
    "other command": _other_command,
}


def broken(seed: int) -> Iterator[tuple[str, list[str]]]:
    """Kinds and commands without end, each kind in turn."""
    rng = Random(seed)
    while True:
        for kind, make in KINDS.items():
            yield kind, make(rng)


def refusals(commands: Iterable[tuple[str, list[str]]], folder: Path) -> list[str]:
    """What is wrong with how commands are refused."""
    faults = []
    for kind, words in commands:
        errors, code = io.StringIO(), -1
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = smd(words)
        text, left = errors.getvalue(), [path.name for path in folder.iterdir()]
        if code != 2 or text.count("error: ") != 1 or "Traceback" in text or left:
            faults.append(f"{kind}: {words} gives {code}, {text!r}, and leaves {left}")
    return faults
