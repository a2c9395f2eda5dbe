"""One host as a whole cluster: Slurm's daemons, or Ray's, started for a test and ended after it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

SLURM = ("munged", "slurmctld", "slurmd", "sbatch")
_PATIENCE_S = 60.0


def lacking_for_slurm() -> str:
    """Why no Slurm can be started here; empty where it can."""
    lacking = [name for name in SLURM if not shutil.which(name)]
    if lacking:
        return f"{lacking[0]} is not installed (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started by root alone"


@contextmanager
def slurm(folder: Path, cpus: int) -> Iterator[dict[str, str]]:
    """A Slurm cluster of this host.

    Args:
        folder: for all that its daemons write.
        cpus: that it offers; cells of a test wait more than they compute.

    Yields:
        The environment in which its commands find it.
    """
    host = socket.gethostname().split(".")[0]
    spool = folder / "spool"
    spool.mkdir(parents=True)
    folder.chmod(0o755)
    key, munge = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(_conf(folder, host, cpus, munge, *free_ports(2)))
    env = {**os.environ, "SLURM_CONF": str(conf)}
    own = [f"--{name}-file={folder / f'munged.{name}'}" for name in ("log", "pid", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", *own],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-f", str(conf), "-N", host],
    ]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as log:
                started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
            if command[0] == "munged":
                until(munge.exists, "munged listens")
        until(lambda: "idle" in said(["sinfo", "--noheader", "--format=%T"], env), "a host of Slurm is idle")
        yield env
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=env, capture_output=True, check=False)
        for process in reversed(started):
            end(process)


def _conf(folder: Path, host: str, cpus: int, munge: Path, control: int, compute: int) -> str:
    return f"""
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={control}
SlurmdPort={compute}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
CryptoType=crypto/munge
StateSaveLocation={folder}/spool
SlurmdSpoolDir={folder}/slurmd
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
KillWait=3
MinJobAge=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def ray_cluster(folder: Path, workers: int) -> Iterator[str]:
    """A Ray cluster on this host: a head without cores, and workers of one core each.

    Yields:
        Its address.
    """
    (port,) = free_ports(1)
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    address = f"127.0.0.1:{port}"
    place = ["--disable-usage-stats", "--block", "--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}"]
    worker = [f"--address={address}", "--num-cpus=1"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, words in enumerate([head, *[worker] * workers]):
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, *words]
            _start_of_ray(command, folder / f"ray-{number}.out", env, started)
        yield address
    finally:
        for process in reversed(started):
            end_family(process)


def _start_of_ray(command: list[str], log: Path, env: dict[str, str], started: list[subprocess.Popen[bytes]]) -> None:
    """Start a part of the cluster and wait for it, since two that start at once may want the same ports."""
    with log.open("wb") as out:
        started.append(process := subprocess.Popen(command, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL))
    until(lambda: "runtime started" in log.read_text() or process.poll() is not None, "Ray runs")
    assert process.poll() is None, log.read_text()


def free_ports(count: int) -> list[int]:
    """Ports of this host that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def said(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout


def until(holds: Callable[[], object], what: str, seconds: float = _PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{seconds:g} s passed before {what}"
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a daemon, gently first."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started; one that has ended has taken its own along."""
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in reversed(family):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(family, timeout=15)
