"""Keyed shaking (CypherTalk, arXiv 2403.07283), reconstructed: its mathematics, public but for the key.

The paper's formulas could not be read; operators and key are our own definitions of what its summaries name.
"""

from smd_research.mechanisms.shaking.horizontal import Substitution, label_permutation
from smd_research.mechanisms.shaking.key import Key, tokenizer_digest
from smd_research.mechanisms.shaking.operators import AFFINE, OPERATORS
from smd_research.mechanisms.shaking.streams import KeyStream
from smd_research.mechanisms.shaking.vertical import affine, shake

__all__ = [
    "AFFINE",
    "OPERATORS",
    "Key",
    "KeyStream",
    "Substitution",
    "affine",
    "label_permutation",
    "shake",
    "tokenizer_digest",
]
