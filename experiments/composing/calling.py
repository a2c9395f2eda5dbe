"""A cell composed for a caller in Python: outside any command, or beside one, in the words of the command line.

Hydra has one global state a process. It is put aside while a cell is composed and put back afterwards, so that whoever
calls (a notebook, a test, a command that is running) finds it as it was.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments.composing.app import RUN, VERSION_BASE
from experiments.composing.cells import composed
from experiments.composing.composition import composition
from experiments.composing.overrides import UsageError, check_choices, check_words, explain, parse
from experiments.trials.plan import Plan
from smd_research.core.paths import conf_dir

_ONE_AT_A_TIME = threading.RLock()
_BARE = re.compile(r"[A-Za-z_/.][\w/.:+-]*", re.ASCII)
_OTHERWISE = re.compile(r"(?i:null|true|false|nan|inf)|[\d.]+(e[+-]?\d+)?", re.ASCII)


def word(key: str, value: Any) -> str:
    """An option and its value as the command line spells them.

    Args:
        key: of the option, e.g. ``defense.survival``.
        value: None, a number, a text, or a list or mapping of these.

    Raises:
        UsageError: for a value that no command line can hold.
    """
    return f"{key}={_spelled(key, value)}"


def planned(words: Sequence[str]) -> Plan:
    """The plan of one cell.

    Args:
        words: as on the command line of ``smd run``, without flags.

    Raises:
        UsageError: for a word that names what there is not, or a value that cannot be; one line, with the near miss.
    """
    for one in words:
        if one.startswith("-"):
            raise UsageError(f"'{one}' is a flag of the command line: give options, e.g. seed=1")
    try:
        check_words(words, conf_dir())
        check_choices(words, conf_dir())
        for override in parse(words):
            if override.is_sweep_override():
                raise UsageError(f"'{override.input_line}' names several cells: give one value")
        return _apart(partial(_composed, words))
    except (HydraException, OmegaConfBaseException) as error:
        with _put_aside():
            raise UsageError(" ".join(explain(error, words, conf_dir(), RUN).split())) from None


def _composed(words: Sequence[str]) -> Plan:
    try:
        cfg, _ = composition(words)
    except ValueError as error:  # Hydra's, of a group's value that is no word
        raise UsageError(" ".join(str(error).split())) from None
    if cfg.cells is not None:
        raise UsageError("this experiment lists several cells: run it with smd run, or name one cell's options")
    return composed(words)


def _apart(make: Callable[[], Plan]) -> Plan:
    """What is composed with Hydra started for it; so are the cells that stand beside it, when they are asked for."""
    with _put_aside(), initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        found = make()

    def beside(changed: Sequence[str]) -> Plan:
        return _apart(partial(found.beside, changed))

    return replace(found, beside=beside)


@contextmanager
def _put_aside() -> Iterator[None]:
    """Hydra's global state cleared, and afterwards as it was."""
    with _ONE_AT_A_TIME:
        before = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = before


def _quoted(text: str) -> str:
    """A text in quotes; a backslash means itself but before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + ("\\'" if end[2] else ""), text) + "'"


def _spelled(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and not _OTHERWISE.fullmatch(value)
        return value if plain else _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_spelled(key, one) for one in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_spelled(key, one)}" for name, one in value.items()) + "}"
    raise UsageError(f"{key}: a {type(value).__name__} is no value of an option; give a number, a text or a list")
