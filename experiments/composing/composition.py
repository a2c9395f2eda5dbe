"""The configurations of many cells of one command: what they choose is composed once, what they set is set on it.

A table plans hundreds of cells, of which most choose the same parts. Hydra reads every file again for each of them,
which takes many times as long as setting a value. Nor does it compose for each choice: a part whose file stands alone
(it names no other option and no place but its own) is what its file says, whatever stands beside it.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.composing.overrides import parse

SEARCHED = "hydra.searchpath"
"""Where options are looked for besides: with other folders, the same words may choose something else."""

Composition = tuple[DictConfig, Mapping[str, Any]]
"""A configuration without Hydra's own, and which option each group chose."""


@dataclass
class _Known:
    """What was composed and read since Hydra was started with its folders.

    Attributes:
        chosen: compositions by the words that choose. The configuration is pickled: every cell takes a copy of its own,
            and to read one is six times as fast as to copy it.
        parts: what stands in the files of options that stand alone, by group and option; None for others.
    """

    chosen: dict[tuple[str, ...], tuple[bytes, Mapping[str, Any]]] = field(default_factory=dict)
    parts: dict[tuple[str, str], bytes | None] = field(default_factory=dict)


_KNOWN: "WeakKeyDictionary[object, _Known]" = WeakKeyDictionary()
"""By Hydra's own start."""


def composition(overrides: Sequence[str]) -> Composition:
    """What Hydra composes of some overrides, inside a command that it has started.

    Raises:
        HydraException: as ``hydra.compose``.
    """
    words = parse(list(overrides))
    choosing = {*_chosen(())[1], SEARCHED}
    if len(words) == len(overrides) and all(_is_plain(word) for word in words):
        values = [word for word in words if word.key_or_group not in choosing]
        held, choices = _chosen(tuple(str(word.input_line) for word in words if word.key_or_group in choosing))
        cfg: DictConfig = pickle.loads(held)
        try:
            for word in values:
                OmegaConf.update(cfg, word.key_or_group, word.value(), merge=True)
        except OmegaConfBaseException:
            pass  # Hydra says below what is wrong, in its own words
        else:
            return cfg, choices
    return by_hydra(overrides)


def hydra_of(overrides: Sequence[str]) -> DictConfig:
    """Hydra's own part of a configuration."""
    cfg = compose("config", overrides=list(overrides), return_hydra_config=True)
    job: DictConfig = cfg.hydra
    return job


def _is_plain(word: Override) -> bool:
    """Whether a word replaces something that there is: it adds, removes and sweeps nothing, and is not Hydra's own."""
    changes = not (word.is_add() or word.is_force_add() or word.is_delete() or word.is_sweep_override())
    own = word.key_or_group.startswith("hydra") and word.key_or_group != SEARCHED
    return changes and word.package is None and not own


def _known() -> _Known:
    return _KNOWN.setdefault(GlobalHydra.instance().hydra, _Known())


def _chosen(words: tuple[str, ...]) -> tuple[bytes, Mapping[str, Any]]:
    known = _known().chosen
    if words not in known:
        cfg, choices = _assembled(words) or by_hydra(words)
        known[words] = (pickle.dumps(cfg), choices)
    return known[words]


def _assembled(words: Sequence[str]) -> Composition | None:
    """The configuration of no words with the parts of these in their places; None where one does not stand alone."""
    named = {str(word.key_or_group): word.value() for word in parse(list(words))}
    parts = {group: _standing_alone(group, option) for group, option in named.items()}
    if len(named) < len(words) or not parts or None in parts.values():
        return None
    held, choices = _chosen(())
    cfg: DictConfig = pickle.loads(held)
    with open_dict(cfg):
        for group, part in parts.items():
            cfg[group] = pickle.loads(part or b"")
    return cfg, {**choices, **named}


def _standing_alone(group: str, option: Any) -> bytes | None:
    """What the file of an option says, pickled; None where there is no such file, or it reaches beyond its group."""
    known, loader = _known().parts, GlobalHydra.instance().config_loader()
    if not isinstance(option, str) or not option.isidentifier() or not isinstance(loader, ConfigLoaderImpl):
        return None
    if (group, option) not in known:
        found = loader.repository.load_config(f"{group}/{option}")
        alone = found is not None and not found.defaults_list and found.header["package"] is None
        known[group, option] = pickle.dumps(found.config) if found is not None and alone else None
    return known[group, option]


def by_hydra(words: Sequence[str]) -> Composition:
    """What Hydra composes of some overrides from nothing.

    Raises:
        HydraException: as ``hydra.compose``.
    """
    cfg = compose("config", overrides=list(words), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices
