"""From a configuration node to the object it describes."""

from collections.abc import Mapping
from typing import Any

import hydra
from hydra.errors import InstantiationException

from experiments.composing.components import options_of
from smd_research.core.errors import ConfigError, LabError


def build(node: Mapping[str, Any], kind: type[Any] | None = None, **more: Any) -> Any:
    """Instantiate the ``_target_`` of a component.

    Args:
        node: its ``_target_`` and options; what its YAML notes besides (``version``, ``later``) is left out.
        kind: what the object has to be.
        more: options that stand elsewhere in the configuration.

    Raises:
        ConfigError: the target does not exist, does not take these options, or is not a ``kind``.
        LabError: whatever the component itself refuses.
    """
    target = str(node["_target_"])
    try:
        made = hydra.utils.instantiate({**options_of(node), **more}, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, LabError):
            raise cause from None
        raise ConfigError(f"cannot build {target}: {cause or error}".replace("\n", " ")) from error
    if kind is not None and not isinstance(made, kind):
        raise ConfigError(f"{target} gives a {type(made).__name__}, not a {kind.__name__}")
    return made
