"""What a job asks an engine for."""

from dataclasses import dataclass

from smd_research.core.errors import ConfigError

_EARLY_S = 90.0


@dataclass(frozen=True)
class Wants:
    """What each job gets, and what is done with one that is lost.

    Attributes:
        cpus: cores, and threads of whatever reads ``OMP_NUM_THREADS``.
        gpus: accelerators.
        mem_gb: gigabytes of memory; None for the engine's default.
        timeout_min: minutes after which a cell is broken off and given back; None for no end.
        cells_per_job: cells that one job runs, one after another.
        retries: times that a lost job is submitted again.
        poll_s: seconds between two looks at the jobs.

    Raises:
        ConfigError: for a value out of range.
    """

    cpus: int
    gpus: float
    mem_gb: float | None
    timeout_min: float | None
    cells_per_job: int
    retries: int
    poll_s: float

    def __post_init__(self) -> None:
        least = {
            "cpus": 1,
            "gpus": 0,
            "mem_gb": 0.1,
            "timeout_min": 0.1,
            "cells_per_job": 1,
            "retries": 0,
            "poll_s": 0.1,
        }
        whole = {"cpus", "cells_per_job", "retries"}
        for name, low in least.items():
            value, kinds = getattr(self, name), (int,) if name in whole else (int, float)
            if value is None and name in ("mem_gb", "timeout_min"):
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value < float("inf"):
                noun = "whole number" if name in whole else "number"
                raise ConfigError(f"hydra.launcher.{name}={value} is no {noun} from {low:g} on")

    @property
    def alarm_s(self) -> float | None:
        """Seconds after which a job breaks its cell off, while there is time to give it back."""
        if self.timeout_min is None:
            return None
        limit = self.timeout_min * 60
        return max(limit - _EARLY_S, 0.6 * limit)
