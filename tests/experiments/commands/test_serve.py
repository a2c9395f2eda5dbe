"""Two hosts on one: a server and a run that meet over TCP; what does not fit ends in one line on both sides."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from tests_support import numbers

from experiments.commands.cli import main as smd
from experiments.commands.serve import offer
from experiments.composing.app import VERSION_BASE
from experiments.trials.hosting import Offer, host, provider
from smd_research.boundary import Channel, Untrusted
from smd_research.boundary.addresses import address_of, connect, listen
from smd_research.boundary.control import ControlStream
from smd_research.boundary.messages import Message
from smd_research.boundary.remote import Remote, RemoteHost
from smd_research.boundary.session import Boundary
from smd_research.core.errors import ConfigError, PeerLostError, ProtocolError
from smd_research.core.paths import conf_dir
from smd_research.defenses.none import NoDefense
from smd_research.defenses.split import Split
from smd_research.models import Bundle, sources


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return sources.embedded()


class Server:
    """A server in a thread."""

    def __init__(self, offer: Offer, connections: int) -> None:
        self.listener = listen("127.0.0.1:0")
        self.address = address_of(self.listener)
        self._thread = threading.Thread(target=host, args=(self.listener, offer, connections), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.listener.close()


@pytest.fixture(scope="module")
def offered(bundle: Bundle) -> Offer:
    """What ``smd serve`` offers as it is configured."""
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return offer(compose("serve"), "smd")


def one_error(capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    return errors[0], [line for line in lines if line not in errors]


def test_two_hosts_give_the_numbers_of_one(
    offered: Offer, in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "defense=smd", "attack=prior", "transport=tcp", *small]
    assert smd([*words, "results_dir=results/here"]) == 0
    server = Server(offered, connections=2)
    assert smd([*words, f"address={server.address}", "results_dir=results/there"]) == 0
    server.wait()
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("127.0.0.1:") and line.endswith(": served") for line in said) == 2
    pd.testing.assert_frame_equal(numbers(Path("results/here")), numbers(Path("results/there")))


def test_a_known_cell_needs_no_server(bundle: Bundle, in_folder: Path, small: list[str]) -> None:
    words = ["run", "defense=smd", "attack=none", "transport=tcp", *small]
    assert smd(words) == 0
    assert smd([*words, "address=127.0.0.1:1"]) == 0


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("defense=none", "defense.name=none asked, smd served"),
        ("wire_dtype=fp16", "defense.wire_dtype=fp16 asked, fp32 served"),
        ("defense.send_order=after_kv", "defense.send_order=after_kv asked, after_q served"),
        ("model=random", "model=random-llama asked, embedded served"),
    ],
)
def test_a_run_of_something_else_is_refused_on_both_sides(
    offered: Offer, in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str], word: str, says: str
) -> None:
    server = Server(offered, connections=1)
    words = ["run", "defense=smd", "attack=none", "transport=tcp", f"address={server.address}", *small, word]
    assert smd(words) == 1
    server.wait()
    error, rest = one_error(capsys)
    assert f"is failed: {server.address} refused: " in error
    assert says in error
    assert any(says in line and "refused" in line for line in rest)


def test_a_run_without_the_tap_says_how_to_mend_it(
    offered: Offer, in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(replace(offered, tap=False), connections=1)
    assert smd(["run", "attack=none", "transport=tcp", f"address={server.address}", *small]) == 1
    server.wait()
    assert "tap=true" in one_error(capsys)[0]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (1, "cannot reach 127.0.0.1:1: connection refused"),
        (2, "address=nowhere: give HOST:PORT, or the path of a socket"),
    ],
)
def test_nobody_there_is_said_before_the_model_is_loaded(
    in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("experiments.trials.workbench.Workbench.bundle", None)
    address = "127.0.0.1:1" if code == 1 else "nowhere"
    assert smd(["run", "attack=none", "transport=tcp", f"address={address}", *small]) == code
    assert says in one_error(capsys)[0]


class Leaving(Untrusted):
    """Hangs up in the middle of a request."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel

    def handle(self, message: Message) -> Message | None:
        raise PeerLostError("power failed")


def test_a_server_that_leaves_in_the_middle_fails_the_cell_with_one_line(
    offered: Offer, in_folder: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(replace(offered, factory=Leaving), connections=1)
    assert smd(["run", "attack=none", "transport=tcp", f"address={server.address}", *small]) == 1
    server.wait()
    assert "is failed: the peer disconnected" in one_error(capsys)[0]


def test_the_server_outlives_strangers_and_what_does_not_fit_its_model(
    bundle: Bundle, offered: Offer, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(offered, connections=4)
    with contextlib.closing(connect(server.address)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    remote = Remote(server.address, offered.card)
    broken = RemoteHost(Leaving(None), remote, Boundary()._meter, timeout_s=5)  # type: ignore[arg-type]
    broken.channel._sock.send(b"MS\2\1\0\0\0\0\0\0\0\0\1\0\0\0x")
    assert broken._tap is not None
    with pytest.raises(ProtocolError, match="malformed frame"):
        broken._tap.recv()
    broken.close()
    client = RemoteHost(Leaving(None), remote, Boundary()._meter, timeout_s=5)  # type: ignore[arg-type]
    assert client.control("memory")["weights"] == bundle.weight_bytes
    client.close()
    with contextlib.closing(ControlStream(connect(server.address), "server", 5)) as last:
        last.send([])
        assert "malformed" in last.recv()["refused"]
    server.wait()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert [line.endswith(": served") for line in said] == [False, False, True, False]
    assert "speaks something else" in said[0]


def test_a_provider_made_of_the_users_secrets_cannot_be_started_apart(bundle: Bundle) -> None:
    assert provider(NoDefense(), bundle)
    assert provider(Split(1, "sequence"), bundle)
    with pytest.raises(ConfigError, match="use transport=process"):
        provider(Split(1, "both"), bundle)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.path=/no/such", "model=local"], "no model at /no/such"),
        (["defense=split_permuted"], "use transport=process"),
    ],
)
def test_a_server_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert smd(["serve", "address=127.0.0.1:0", "connections=0", *words]) == 1
    assert says in one_error(capsys)[0]


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(listen("127.0.0.1:0")) as taken:
        assert smd(["serve", f"address={address_of(taken)}", "model=local", "model.path=/no/such"]) == 1
    assert "already in use; choose another address=" in one_error(capsys)[0]


@pytest.mark.slow
def test_the_command_says_when_it_is_ready_and_stops_at_ctrl_c(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "experiments", "serve", "address=127.0.0.1:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=environment) as server:
        assert server.stdout is not None
        ready = server.stdout.readline()
        assert ready.startswith("serving smd on embedded at 127.0.0.1:")
        assert "not authenticated, not encrypted" in ready
        address = ready.split(" at ")[1].split(",")[0]
        with contextlib.closing(connect(address)) as stranger:
            stranger.sendall(b"hello, is anybody there?")
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=20)
    assert server.returncode == 0
    assert out == ""
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
