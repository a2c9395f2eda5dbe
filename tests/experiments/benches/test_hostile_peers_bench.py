"""The bench of hostile peers measures what it says: its peers are at it, and the honest user is served."""

import contextlib
import random
import threading
from collections.abc import Iterator

import pytest

from experiments.benches import hostile_peers
from experiments.benches.case import Settings
from smd_research.boundary.addresses import address_of, listen
from smd_research.core.errors import LabError
from smd_research.defenses.smd.service import Service
from smd_research.defenses.smd.users import Ask
from smd_research.models import sources


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(sources.random("llama"), users=hostile_peers.PEERS, timeout_s=20) as service:
        yield service


@pytest.mark.parametrize("peer", [hostile_peers.dribbles, hostile_peers.answers_slowly, hostile_peers.asks_nonsense])
def test_a_peer_is_at_it_for_longer_than_a_moment(service: Service, peer: hostile_peers.Peer) -> None:
    """Nothing else than the service's answer ends its turn; the service goes on."""
    ended: list[BaseException] = []

    def turn() -> None:
        try:
            peer(service.address, random.Random(0))
        except LabError:
            pass
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    thread.join(0.5)
    user = service.join()
    user.ask(Ask((7, 8, 9), 3))
    assert user.answer().generation.ids
    assert not ended


def test_a_caller_takes_its_turn_whoever_listens() -> None:
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        for peer in (hostile_peers.greets_slowly, hostile_peers.calls_and_goes):
            peer(address_of(listener), random.Random(0))


@pytest.mark.slow
def test_an_honest_user_is_measured_alone_and_beside_each_kind() -> None:
    cases = hostile_peers.cases(Settings(repeats=1))  # which closes the service when it is let go
    modes = next(cases)
    assert [*modes.modes] == ["alone", "dribbles", "answers_slowly", "comes_and_goes", "asks_nonsense", "all"]
    assert isinstance(modes.modes["all"](), float)
