"""Whether a device is there."""

import torch

from smd_research.core.errors import ConfigError, MachineError


def ensure_device(name: str) -> None:
    """Check that this machine has a device, before a model is loaded for it.

    Args:
        name: as torch spells it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        ConfigError: there is no such name.
        MachineError: this machine has no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name} is unknown: use cpu, cuda, cuda:1 or mps") from None
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):  # each back end refuses in its own way
        raise MachineError(f"device={name}: this machine has none that can be used; use device=cpu") from None
