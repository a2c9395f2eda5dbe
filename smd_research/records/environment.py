"""Where and with what a cell ran: enough to judge a timing, nothing that names a person or a machine."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "smd-research",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "datasets",
    "faker",
    "torchmetrics",
)


def environment(device: str = "cpu", wall_s: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Describe this process for ``environment.json``.

    Args:
        device: where the model ran.
        wall_s: seconds by stage, e.g. ``{"deploy": 0.4, "attack": 12.1}``.

    Returns:
        Versions, platform, processor, threads, device, source commit, UTC time and stage times; no path, no host name.
    """
    import torch  # here, so that reading records does not wait for it

    git = _git()
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return {
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": {
            "name": _cpu_name(),
            "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
            "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        },
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
        "device": device,
        "accelerator": accelerator,
        "git": git and dict(git),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "wall_s": {name: round(seconds, 4) for name, seconds in (wall_s or {}).items()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


@cache
def _git() -> dict[str, Any] | None:
    """Commit of the source tree, None when the package does not run from a checkout of its own.

    Asked once a process: what runs is what was loaded, whatever is committed while a sweep goes on.
    """
    source = Path(__file__).resolve().parent
    # An installed copy may lie inside somebody else's checkout: only a tracked file makes the commit ours.
    if _run_git(source, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _run_git(source, "rev-parse", "HEAD")
    changes = _run_git(source, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)} if commit else None


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
