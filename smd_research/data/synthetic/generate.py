"""Documents by register, split and seed: document ``i`` never depends on how many are asked for."""

from functools import lru_cache
from random import Random

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import sequence
from smd_research.data.prompts import Document
from smd_research.data.synthetic.grammar import Expansion, families_of_split
from smd_research.data.synthetic.partition import CorpusSplit
from smd_research.data.synthetic.pools import pools
from smd_research.data.synthetic.values import Values

REGISTERS = ("clinical", "financial", "personal")
MIXED = "mixed"


def generate(register: str, split: str, n: int, seed: int = 0, start: int = 0) -> list[Document]:
    """Generate documents with marked secrets.

    Args:
        register: ``clinical``, ``financial``, ``personal``, or ``mixed`` (the three in turn).
        split: ``train``, ``validation`` or ``evaluation``: disjoint by template and by secret value.
        n: how many documents.
        seed: a different seed gives different documents of the same split.
        start: number of the first document, for streaming.

    Returns:
        ``n`` documents; the first ``m`` are the same whatever ``n`` is.

    Raises:
        ConfigError: for an unknown register or split.
    """
    if register not in (*REGISTERS, MIXED):
        raise ConfigError(f"unknown register {register!r}; choose one of {', '.join((*REGISTERS, MIXED))}")
    if split not in tuple(CorpusSplit):
        raise ConfigError(f"unknown split {split!r}; choose one of {', '.join(CorpusSplit)}")
    base = int(sequence(seed, "synthetic", register, split).generate_state(1, "uint64")[0])
    documents = []
    for number in range(start, start + n):
        of = REGISTERS[number % len(REGISTERS)] if register == MIXED else register
        text_id = f"{register}-{split}-{seed}-{number}"
        documents.append(_document(of, CorpusSplit(split), f"{base}/{number}", text_id))
    return documents


@lru_cache(maxsize=2**13)  # a dozen megabytes; the cells of a process ask for the same public text again and again
def _document(register: str, split: CorpusSplit, seed: str, text_id: str) -> Document:
    rng = Random(seed)
    expansion = Expansion(families_of_split(register, split), Values(split, pools(split), rng).draw, rng)
    expansion.expand("shape")
    return Document(text_id, "".join(expansion.parts), tuple(expansion.spans), register)
