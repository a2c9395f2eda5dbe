"""Callers and guests of a listening party who mean harm: the next honest guest is served unchanged."""

import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hostile import CALLS

from experiments.trials.hosting import Offer, host, provider
from smd_research.boundary import Boundary
from smd_research.boundary.addresses import address_of, listen
from smd_research.boundary.remote import Remote
from smd_research.core.errors import LabError
from smd_research.defenses.base import Defense
from smd_research.defenses.none import NoDefense
from smd_research.defenses.slip import Slip
from smd_research.defenses.smd.defense import Smd
from smd_research.defenses.split import Split
from smd_research.models import Bundle, sources

CALLERS = int(os.environ.get("SMD_HOSTILE", "24"))
IDS = (7, 8, 9, 10)


def _host(listener: socket.socket, offer: Offer) -> None:
    with contextlib.suppress(OSError):  # closed when the test is over
        host(listener, offer)


@contextlib.contextmanager
def listening(defense: Defense, bundle: Bundle) -> Iterator[tuple[str, Offer]]:
    """A server of a defense in a thread: its address, and what it offers."""
    with contextlib.closing(listen("127.0.0.1:0")) as listener:
        offer = Offer(provider(defense, bundle), {"model": "m", "defense": {"name": "d"}}, timeout_s=20)
        threading.Thread(target=_host, args=(listener, offer), daemon=True).start()
        yield address_of(listener), offer


def visit(defense: Defense, bundle: Bundle, address: str, offer: Offer) -> list[int]:
    """What an honest guest gets."""
    boundary = Boundary("tcp", remote=Remote(address, offer.card))
    with defense.prepare(bundle).deploy(boundary) as deployment:
        logits = deployment.score(IDS, (11, 12))
        assert logits.shape == (2, bundle.geometry.vocab)
        deployment._begin()
        deployment._request(IDS, 4, None)
        return deployment.client.ids


@pytest.mark.parametrize(
    ("defense", "callers"),
    [(NoDefense(), CALLERS), (Smd(), CALLERS), (Split(), CALLERS), (Slip(rank=2), CALLERS // 6)],
    ids=["none", "smd", "split", "slip"],
)
def test_after_every_hostile_session_the_next_honest_guest_is_served_unchanged(
    defense: Defense, callers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = sources.random("llama")
    with listening(defense, bundle) as (address, offer):
        expected = visit(defense, bundle, address, offer)
        for seed in range(callers):
            dice = random.Random(seed)
            with contextlib.suppress(LabError, OSError):  # of the hostile one
                dice.choice(CALLS)(address, replace(offer).card, dice)
            assert visit(defense, bundle, address, offer) == expected, seed
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert all(line.isascii() and line.isprintable() and len(line) < 600 for line in said.splitlines())
