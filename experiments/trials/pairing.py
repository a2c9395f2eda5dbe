"""What the two hosts of a run tell each other about what they run, so that both mean the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smd_research.core.cell import component_name, parameters
from smd_research.core.cell import plain as plain_values

if TYPE_CHECKING:
    from experiments.trials.plan import Plan
    from smd_research.boundary.remote import Remote
    from smd_research.models.bundle import Bundle


def card(bundle: "Bundle", defense: Mapping[str, Any], version: int) -> dict[str, Any]:
    """What both sides must have in common: model, its weights, defense and all of its options.

    Args:
        bundle: the model.
        defense: the defense as a cell holds it.
        version: of the defense.
    """
    shown = {"name": component_name(defense), "version": version, **parameters(defense)}
    return {"model": bundle.name, "weights": bundle.fingerprint(), "defense": plain_values(shown)}


def remote(plan: "Plan", bundle: "Bundle") -> "Remote | None":
    """The untrusted party that a cell is to meet at an address; None where it runs here."""
    if plan.address is None:
        return None
    from smd_research.boundary.remote import Remote

    return Remote(plan.address, card(bundle, plan.cell.defense, plan.cell.versions["defense"]))
