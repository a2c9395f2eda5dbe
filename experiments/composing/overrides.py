"""Command-line overrides: what they may say, and the near miss when they say something else."""

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise, zip_longest
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from experiments.composing.catalogue import NOTES, explained

_FLAGS_WITH_VALUE = {
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--package",
    "-p",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--experimental-rerun",
}


OPTIONAL_GROUPS = ("experiment", "table", "task")
"""Groups of which a command may choose nothing."""


class UsageError(Exception):
    """A command line that names something that does not exist."""


def groups(folder: Path) -> dict[str, list[str]]:
    """Configuration groups and their options, as the folder spells them."""
    return {
        group.name: sorted(option.stem for option in group.glob("*.yaml"))
        for group in sorted(folder.iterdir())
        if group.is_dir() and any(group.glob("*.yaml"))
    }


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion in words: the near miss, or what there is."""
    options = sorted(known)
    match = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if match:
        return f"did you mean '{match[0]}'?"
    return f"there is {', '.join(options)}" if len(options) <= 12 else "'--help' lists them"


def gathered(arguments: Sequence[str]) -> list[str]:
    """Flags first, then all overrides: Hydra's own parser refuses overrides on both sides of a flag."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in _FLAGS_WITH_VALUE:
            flags.extend([value] if (value := next(words, None)) is not None else [])
    return [*flags, *overrides]


def parse(arguments: Sequence[str]) -> list[Override]:
    """The overrides among command-line arguments (flags and their values are left out).

    Raises:
        HydraException: an argument is not an override.
    """
    return [_parsed(word) for word in arguments if "=" in word and not word.startswith("-")]


@lru_cache(maxsize=4096)  # the hundreds of cells of a table are made of the same few words
def _parsed(word: str) -> Override:
    (found,) = OverridesParser.create().parse_overrides([word])
    return found


def check_words(arguments: Sequence[str], folder: Path) -> None:
    """Refuse what is no override, with the override that was probably meant.

    Raises:
        UsageError: for a word without ``=``, or a group spelled as a flag.
    """
    known = groups(folder)
    for word, after in zip_longest(arguments, arguments[1:], fillvalue=""):
        name = word.lstrip("-").partition("=")[0]
        options = known.get(name, [])
        meant = f"{name}={after if after in options else next(iter(options), 'VALUE')}"
        if word.startswith("-") and options:
            raise UsageError(f"'{word}' is no flag: write {meant}")
        if not word.startswith(("-", "~")) and "=" not in word and not is_value(word, arguments):
            raise UsageError(f"'{word}' lacks its value: write {meant}")


def is_value(word: str, arguments: Sequence[str]) -> bool:
    """Whether a word belongs to the flag before it."""
    return any(one in _FLAGS_WITH_VALUE and two == word for one, two in pairwise(arguments))


def check_choices(arguments: Sequence[str], folder: Path) -> None:
    """Refuse an unknown option of a group before anything runs, in every value of a sweep.

    Raises:
        UsageError: naming the option and its near miss; a key by which a part says what it is; or an option of a
            user's own folder that has the name of another, which would be taken in its place.
    """
    known, hidden = groups(folder), dict[str, Path]()
    for extra in folders(arguments):
        for group, options in groups(extra).items():
            there = known.get(group, [])
            hidden |= {f"{group}={one}": extra / group / f"{one}.yaml" for one in options if one in there}
            known[group] = sorted({*there, *options})
    for override in parse(arguments):
        key = override.key_or_group or ""
        if _is_note(key, known):
            raise UsageError(
                f"{key} is no option: a part's own file says it; another part is another file, found with -cd DIR"
            )
        group = key.split("@")[0]
        if group not in known or override.is_delete():
            continue
        for value in _values(override):
            if value in ("null", "None"):
                raise UsageError(f"{group}=null: {_without(group, known[group])}")
            if value not in known[group]:
                raise UsageError(f"unknown {group} '{value}': {nearest(value, known[group])}")
            own = hidden.get(f"{group}={value}")
            if own and own.resolve() != (folder / group / own.name).resolve():
                raise UsageError(f"{own} has the name of another {group}: give it its own")


def _is_note(key: str, known: Iterable[str]) -> bool:
    """Whether a dotted key is something that a part's file says of the part."""
    part, *rest = key.split(".")
    return part in known and bool(rest) and rest[0] in ("_target_", *NOTES)


def _without(group: str, options: Sequence[str]) -> str:
    """What to write for none of a group."""
    if group in OPTIONAL_GROUPS:
        return "leave the word out"
    return f"write {group}=none" if "none" in options else f"choose one of {', '.join(options)}"


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    value = override.value()
    if isinstance(value, list):  # experiment=[demo,smoke]: a later one over an earlier
        return [str(one) for one in value]
    return [str(override.get_value_element_as_str())]


def folders(arguments: Sequence[str]) -> list[Path]:
    """The folders that a command line adds to the configuration (``-cd DIR``)."""
    found = []
    for position, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value or "".join(arguments[position + 1 : position + 2])))
    return [folder for folder in found if folder.is_dir()]


def explain(error: Exception, arguments: Sequence[str], folder: Path, config_name: str) -> str:
    """One line for an error of composition: what is wrong and what was probably meant."""
    text = f"{error} {error.__cause__ or ''}"
    lacking = re.search(r"Missing mandatory value: \S+\s+full_key: (\S+)", text)
    if lacking:
        return _lacking(lacking[1], arguments, folder, config_name)
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if unknown:
        word = next(group for group in unknown.groups() if group)
        keys = _keys(arguments, word, folder, config_name)
        known = (key for key in keys if key != word and not _is_note(key, groups(folder)))  # a group of other commands
        return f"unknown key '{word}': {nearest(word, known)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: {_quoted_word(error.override)}"
    return re.sub(r"See https://\S+ for details", "", str(error))


def _quoted_word(word: str) -> str:
    """How to give a value as it stands where it has characters that say something of their own: ``~ ( [ { : ,``."""
    key, given, value = word.partition("=")
    bare = value.strip("\"'")
    if not (key and given and bare) or {'"', "'"} & set(bare):
        return "write KEY=VALUE"
    quoted = f'{key}="{bare}"'
    return f"write {shlex.quote(quoted)}"


def _lacking(key: str, arguments: Sequence[str], folder: Path, config_name: str) -> str:
    """A value that must be given, with what its comment says of it."""
    group, _, name = key.rpartition(".")
    chosen = next((word.partition("=")[2] for word in arguments if word.startswith(f"{group}=")), "")
    file = folder / group / f"{chosen}.yaml" if group else folder / f"{config_name}.yaml"
    said = {option: text for option, _, text in explained(file)} if file.is_file() else {}
    example = said.get(name, "").split(",")[0].strip() or f"{key}=VALUE"
    return f"{f'{group}={chosen}' if chosen else 'this command'} needs {example}"


def _keys(arguments: Sequence[str], offending: str, folder: Path, config_name: str) -> list[str]:
    """Every dotted key of the configuration without the offending override, and the groups."""
    words = [word for word in arguments if "=" in word and not word.startswith("-")]
    kept = [word for word in words if word.split("=")[0].lstrip("+~") != offending and "," not in word]
    searched = ",".join(f"file://{extra.resolve()}" for extra in folders(arguments))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base=None):
            composed = compose(config_name, overrides=[*kept, f"hydra.searchpath=[{searched}]"])
    except HydraException:
        return list(groups(folder))
    return sorted({*_dotted(composed), *groups(folder)})


def _dotted(node: DictConfig, prefix: str = "") -> list[str]:
    found = []
    for key in node:
        name = prefix + str(key)
        found.append(name)
        child = None if OmegaConf.is_missing(node, key) else node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            found.extend(_dotted(child, f"{name}."))
    return found
