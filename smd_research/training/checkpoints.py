"""Checkpoints that runs continue from: read as weights and plain values alone, never as code."""

from pathlib import Path
from typing import Any

import torch

from smd_research.core.errors import ConfigError


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        ConfigError: when it is damaged, or holds what is neither weights nor plain values.
    """
    try:
        # Mapped, so that looking at it costs no memory; a pickle in it may name no code.
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged file makes the reader do
        raise ConfigError(
            f"the checkpoint {path} cannot be read as weights alone ({type(error).__name__}): delete it, and the "
            "training begins again"
        ) from None
    return found


def resumable(path: Path | None) -> Path | None:
    """The checkpoint to go on from, None where there is none yet.

    Raises:
        ConfigError: as :func:`load`.
    """
    if path is None or not path.is_file():
        return None
    load(path)
    return path
