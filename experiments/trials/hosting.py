"""A listening party: what it serves, and the loop that serves one guest after another."""

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from smd_research.core.clock import MACHINE, Clock
from smd_research.core.errors import ConfigError, LabError
from smd_research.core.progress import say
from smd_research.core.quoting import quoted

LONGEST_LINE = 500

if TYPE_CHECKING:
    from smd_research.boundary.process import UntrustedFactory
    from smd_research.boundary.remote import Guest
    from smd_research.defenses.base import Defense
    from smd_research.models.bundle import Bundle


@dataclass(frozen=True)
class Offer:
    """What a server serves.

    Attributes:
        factory: builds the untrusted party for each connection.
        card: what a connection must ask for.
        tap: whether the measurement tap is offered.
        timeout_s: how long a message may take, and how long a peer may stay silent inside a request.
        idle_s: how long a peer may ask for nothing.
        clock: tells when those are over.
    """

    factory: "UntrustedFactory"
    card: Mapping[str, Any]
    tap: bool = True
    timeout_s: float = 60.0
    idle_s: float = 600.0
    clock: Clock = MACHINE


def provider(defense: "Defense", bundle: "Bundle") -> "UntrustedFactory":
    """The maker of a defense's untrusted party, from what is public.

    Raises:
        ConfigError: for a defense whose trusted party makes, out of secrets, the weights that the untrusted one runs.
    """
    from smd_research.boundary import Boundary
    from smd_research.models.bundle import Bundle

    found: list[UntrustedFactory] = []

    def keep(factory: "UntrustedFactory") -> "UntrustedFactory":
        found.append(factory)
        return factory

    with defense.prepare(bundle).deploy(Boundary("inproc", record=False, impostor=keep)):
        (factory,) = found
    parts = factory.args if isinstance(factory, partial) else ()
    if any(isinstance(part, Bundle) and part is not bundle for part in parts):
        raise ConfigError(
            f"the provider of {type(defense).__name__} with these options runs weights made of the user's secrets, "
            "so it cannot be started apart: use transport=process"
        )
    return factory


def host(
    listener: socket.socket,
    offer: Offer,
    connections: int | None = None,
    tell: Callable[[str], object] = say,
) -> None:
    """Serve one connection after another, and say of each in one line how it ended.

    Args:
        listener: where they arrive.
        offer: what is served.
        connections: stop after so many; None goes on for ever.
        tell: takes the lines.

    Raises:
        OSError: when the listener is closed.
    """
    from smd_research.boundary.door import Door

    with contextlib.closing(
        Door(listener, offer.card, tap=offer.tap, timeout_s=offer.timeout_s, clock=offer.clock)
    ) as door:
        for _ in count() if connections is None else range(connections):
            try:
                guest = door.welcome()
            except LabError as error:
                tell(quoted(error, LONGEST_LINE))
                continue
            tell(quoted(f"{guest.peer}: {_entertain(guest, offer)}", LONGEST_LINE))


def _entertain(guest: "Guest", offer: Offer) -> str:
    """Serve a guest until it leaves; says how that ended."""
    try:
        with contextlib.closing(guest):
            guest.serve(offer.factory, offer.timeout_s, idle_s=offer.idle_s, clock=offer.clock)
    except LabError as error:
        return str(error)
    except Exception as error:  # whatever a guest brings about ends that guest, and nothing else
        return f"cannot be served: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return "served"
