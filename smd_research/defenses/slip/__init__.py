"""Weight decomposition (SLIP): products, mask bank, device, keeper, and the defense that joins them."""

from smd_research.defenses.slip.defense import Slip, SlipPrepared
from smd_research.defenses.slip.deployment import BoundaryDeployment, SlipDeployment

__all__ = ["BoundaryDeployment", "Slip", "SlipDeployment", "SlipPrepared"]
