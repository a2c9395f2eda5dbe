"""The boundary between two parties: it carries, counts, records and models every message that passes."""

from smd_research.boundary.channel import Channel, Party, Untrusted
from smd_research.boundary.ledger import Direction, Ledger
from smd_research.boundary.link import Link
from smd_research.boundary.session import Boundary
from smd_research.boundary.view import AdversaryView

__all__ = ["AdversaryView", "Boundary", "Channel", "Direction", "Ledger", "Link", "Party", "Untrusted"]
