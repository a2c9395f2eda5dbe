"""Ray: each job is a task, on whatever host of the cluster has room.

``hydra-ray-launcher`` is not taken: it holds cloudpickle below 3, brings a client of Amazon's cloud, and waits for no
other task once one is lost.
"""

import contextlib
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from experiments.launching.following import Ended
from experiments.launching.job import Job
from experiments.launching.wants import Wants
from smd_research.core.errors import ConfigError, MachineError

_KNOCK_S = 5.0
_JOINING_S = 30.0


class RayCluster:
    """A Ray cluster.

    Args:
        wants: what each job asks for.
        address: ``HOST:PORT`` of its head; ``auto`` for the one this machine belongs to; ``local`` starts one here,
            which ends with the command.

    Raises:
        ConfigError: ray is not installed, or no host of the cluster has what a job asks for.
        MachineError: no cluster is reached.
    """

    def __init__(self, wants: Wants, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("hydra/launcher=ray needs the extra ray: pip install 'smd-research[ray]'") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray: Any = ray
        self._join(address)
        asked = {"CPU": float(wants.cpus), "GPU": float(wants.gpus), "memory": (wants.mem_gb or 0) * 2**30}
        self._find(asked)
        memory = {"memory": asked["memory"]} if wants.mem_gb else {}
        options = {"num_cpus": wants.cpus, "num_gpus": wants.gpus, "max_retries": 0, **memory}
        self._start = ray.remote(**options)(Job.__call__)
        self._refs: dict[str, Any] = {}

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Hand over jobs."""
        refs = [self._start.remote(job) for job in jobs]
        tickets = [ref.hex()[:12] for ref in refs]
        self._refs |= zip(tickets, refs, strict=True)
        return tickets

    def ended(self, tickets: Collection[str]) -> dict[str, Ended]:
        """Those that gave a result, and those whose process or host is gone."""
        refs = {self._refs[ticket]: ticket for ticket in tickets}
        over, _ = self._ray.wait(list(refs), num_returns=len(refs), timeout=0)
        return {refs[ref]: self._became(ref) for ref in over}

    def cancel(self, tickets: Collection[str]) -> None:
        """End jobs."""
        for ticket in tickets:
            with contextlib.suppress(Exception):
                self._ray.cancel(self._refs[ticket], force=True)

    def leave(self) -> None:
        """Part from the cluster, and end one that was started here."""
        self._ray.shutdown()

    def _join(self, address: str) -> None:
        host, _, port = address.removeprefix("ray://").partition(":")
        try:
            if port:
                socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()  # Ray itself tries for minutes
            where = None if address == "local" else address
            self._ray.init(address=where, log_to_driver=False, logging_level="error")
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise MachineError(
                f"hydra/launcher=ray: no Ray cluster is reached at hydra.launcher.address={address} ({reason:.120}); "
                "start one with 'ray start --head', or say HOST:PORT, or local for one on this machine alone"
            ) from None

    def _find(self, asked: Mapping[str, float]) -> None:
        """Wait until a host has what a job asks for.

        Raises:
            ConfigError: none has, nor one that came in the meantime.
        """
        deadline = time.monotonic() + _JOINING_S
        while True:
            hosts = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            if any(all(host.get(name, 0) >= much for name, much in asked.items()) for host in hosts):
                return
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        self.leave()
        there = "; ".join(_said(host) for host in hosts)
        raise ConfigError(f"hydra/launcher=ray: no host of the cluster has {_said(asked)}; they have {there}")

    def _became(self, ref: Any) -> Ended:
        try:
            return Ended(wrong=self._ray.get(ref))
        except self._ray.exceptions.RayTaskError as error:
            return Ended(wrong=" ".join(str(error.cause).split()))
        except self._ray.exceptions.RayError as error:
            return Ended(lost=" ".join(str(error).split())[:200])


def _said(resources: Any) -> str:
    memory = resources.get("memory", 0) / 2**30
    return f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory:.1f} GiB"
