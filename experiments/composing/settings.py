"""The settings of a command, checked before anything heavy is loaded: type, range, choices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.composing.declared import SIZES
from experiments.composing.overrides import UsageError, nearest, parse

Check = Callable[[Any], str]
"""What is wrong with a value, in a few words; empty where nothing is."""


def whole(least: int, *, null: bool = False) -> Check:
    """A whole number of so much or more, or null where that has a meaning."""

    def check(value: Any) -> str:
        if value is None and null:
            return ""
        number = isinstance(value, int) and not isinstance(value, bool)
        return "" if number and value >= least else f"give a whole number, {least} or more{', or null' * null}"

    return check


def one_of(*words: str) -> Check:
    """One of some words."""
    return lambda value: "" if value in words else f"is unknown: {nearest(str(value), words)}"


def text(value: Any) -> str:
    """Any text but none."""
    return "" if isinstance(value, str) and value.strip() else "give a text"


def yes_or_no(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else "give true or false"


SETTINGS: Mapping[str, Check] = {
    "n_prompts": whole(1),
    "prompt_tokens": whole(1, null=True),
    "max_new_tokens": whole(0),
    "seed": whole(0),
    "transport": one_of("inproc", "process", "tcp"),
    "dtype": one_of("fp32", "fp16", "bf16"),
    "wire_dtype": one_of("fp32", "fp16", "bf16"),
    "device": text,
    "threads": whole(1),
    "results_dir": text,
    "record_texts": yes_or_no,
    "rerun": one_of("failed", "missing", "always", "never"),
    "repeats": whole(1),
    "size": one_of(*SIZES),
}
"""Every setting that commands share, whatever it is that they run."""


def check_given(arguments: Sequence[str]) -> None:
    """Refuse a setting of the command line that cannot be, in every value of a sweep, before Hydra makes its folder.

    Raises:
        UsageError: naming it, its value and what it takes.
    """
    for override in parse(arguments):
        if override.key_or_group in SETTINGS and not override.is_delete():
            swept = override.is_sweep_override()
            for value in override.sweep_iterator() if swept else [override.value()]:
                _check(override.key_or_group, value)


def check_settings(cfg: DictConfig) -> None:
    """Refuse a setting that cannot be.

    Raises:
        UsageError: naming it, its value and what it takes.
    """
    for name in SETTINGS:
        if name not in cfg or OmegaConf.is_missing(cfg, name):
            continue
        _check(name, cfg[name])
    if cfg.get("address") is not None and cfg.get("transport") not in (None, "tcp"):
        raise UsageError(f"address={cfg.address} needs transport=tcp, not {cfg.transport}")


def _check(name: str, value: Any) -> None:
    if wrong := SETTINGS[name](value):
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        raise UsageError(f"{name}={shown}{' ' if wrong.startswith('is ') else ': '}{wrong}")
