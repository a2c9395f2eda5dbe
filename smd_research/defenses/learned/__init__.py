"""Split inference whose client learned, on public text, what to send; four ways, none with a guarantee."""

from smd_research.defenses.learned.adversarial import Adversarial
from smd_research.defenses.learned.bottleneck import InformationBottleneck
from smd_research.defenses.learned.obfuscator import Obfuscator
from smd_research.defenses.learned.sparsify import Sparsify

__all__ = ["Adversarial", "InformationBottleneck", "Obfuscator", "Sparsify"]
