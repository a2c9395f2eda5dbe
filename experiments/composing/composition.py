"""The configurations of many cells of one command: what they choose is composed once, what they set is set on it.

A table plans hundreds of cells, of which most choose the same parts. Hydra reads every file again for each of them,
which takes many times as long as setting a value.
"""

import pickle
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.composing.overrides import parse

SEARCHED = "hydra.searchpath"
"""Where options are looked for besides: with other folders, the same words may choose something else."""

Composition = tuple[DictConfig, Mapping[str, Any]]
"""A configuration without Hydra's own, and which option each group chose."""

_CHOSEN: "WeakKeyDictionary[object, dict[tuple[str, ...], tuple[bytes, Mapping[str, Any]]]]" = WeakKeyDictionary()
"""What was composed since Hydra was started with its folders, by the words that choose.

The configuration is pickled: every cell takes a copy of its own, and to read one is six times as fast as to copy it.
"""


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
    return _composed(overrides)


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


def _chosen(words: tuple[str, ...]) -> tuple[bytes, Mapping[str, Any]]:
    known = _CHOSEN.setdefault(GlobalHydra.instance().hydra, {})
    if words not in known:
        cfg, choices = _composed(words)
        known[words] = (pickle.dumps(cfg), choices)
    return known[words]


def _composed(words: Sequence[str]) -> Composition:
    cfg = compose("config", overrides=list(words), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices
