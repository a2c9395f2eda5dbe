"""Memory of a service by users: weights, keys and values, and what a vault's process costs besides."""

import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from experiments.benches._users import MEGABYTE, MODES, Crowd, endless
from experiments.benches.case import Measured, Modes, Settings
from smd_research.metrics.memory import private_bytes, resident_once, shared_once
from smd_research.models import sources

MODEL = {"small": "100m", "full": "1b"}
USERS = {"small": (1, 2, 4, 8), "full": (1, 2, 4, 8, 16)}
PROMPT, NEW = 128, 8


def cases(settings: Settings) -> Iterator[Modes]:
    """Every number of users, the three modes."""
    name = MODEL[settings.size]
    bundle = endless(sources.random(name))
    for users in USERS[settings.size]:
        with ExitStack() as stack:
            crowds = {
                mode: stack.enter_context(Crowd(bundle, mode, users, PROMPT, NEW, os.cpu_count() or 1))
                for mode in MODES
            }
            yield Modes(
                f"{name} users={users} prompt={PROMPT}",
                {mode: partial(_megabytes, crowd) for mode, crowd in crowds.items()},
                "MB",
                repeats=1,
                warmup=0,
                labels={"model": name, "users": users, "prompt": PROMPT},
            )


def _megabytes(crowd: Crowd) -> Measured:
    """What all processes hold after a round, shared pages once."""
    answers = crowd.answers()
    service = crowd.service
    mapped = shared_once(service.pids, service.weights.inode)
    own = crowd.bundle.weight_bytes * crowd.users if crowd.mode == "full" else 0
    extra = {
        "weights_mb": (mapped + own) / MEGABYTE,
        "weight_copies": round(mapped / service.weights.nbytes) + (crowd.users if own else 0),
        "kv_mb": (service.provider_kv_bytes() + sum(answer.kv_bytes for answer in answers)) / MEGABYTE,
    }
    if crowd.mode == "smd":
        private = [private_bytes(pid) for pid in service.pids[-crowd.users :]]
        extra["vault_mb"] = (statistics.median(private) - answers[0].kv_bytes) / MEGABYTE
    return Measured(resident_once(service.pids) / MEGABYTE, extra)
