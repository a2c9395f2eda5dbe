"""What ``experiment=smoke`` does to a composed configuration: every size down to its ceiling in the ``smoke`` node."""

import copy
from typing import Any

from omegaconf import DictConfig, OmegaConf


def bring_down(cfg: DictConfig) -> DictConfig:
    """The configuration with every size at its ceiling or below, and without the ceilings; one without them as it is.

    A number above its ceiling comes down to it, and so does null, which means "all"; a list keeps so many of its
    values; a word is replaced. A ceiling of something that the configuration has not is passed over.
    """
    if cfg.get("smoke") is None:
        return cfg
    ceilings = OmegaConf.to_container(cfg.smoke, resolve=True)
    assert isinstance(ceilings, dict)
    smaller = copy.deepcopy(cfg)
    _lower(smaller, {str(name): ceiling for name, ceiling in ceilings.items()})
    OmegaConf.set_struct(smaller, False)
    del smaller["smoke"]
    return smaller


def _lower(node: DictConfig, ceilings: dict[str, Any]) -> None:
    for name, ceiling in ceilings.items():
        if name not in node or OmegaConf.is_missing(node, name):
            continue
        found = node[name]
        if isinstance(ceiling, dict):
            if isinstance(found, DictConfig):
                _lower(found, ceiling)
        else:
            node[name] = _lowered(found, ceiling)


def _lowered(value: Any, ceiling: Any) -> Any:
    if value is None or isinstance(ceiling, str):
        return ceiling
    if OmegaConf.is_list(value):
        return value[:ceiling]
    return min(value, ceiling) if isinstance(value, int | float) else value  # what is no number is refused afterwards
