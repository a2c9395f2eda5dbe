"""Synthetic clinical notes, financial messages and personal letters with marked secrets."""

from smd_research.data.synthetic.generate import MIXED, REGISTERS, generate
from smd_research.data.synthetic.partition import CorpusSplit

__all__ = ["MIXED", "REGISTERS", "CorpusSplit", "generate"]
