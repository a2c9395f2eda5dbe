"""Checksums of the evaluation sets: two laboratories that agree on them evaluated the same secrets."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version

from smd_research.core.errors import ConfigError
from smd_research.data.prompts import Document
from smd_research.data.synthetic import generate

PINNED_DOCUMENTS = 200
PINNED_SEED = 0
PINNED_FAKER = "40.54.0"

# SHA-256 of the first 200 evaluation documents with seed 0.
CHECKSUMS = {
    "clinical": "36241f180f821222c550436cca110cc9a24db74bdda559cba4a8750defe19182",
    "financial": "00b438f43b2735d826095c28909b1e4a2fcb7ef9a97d32d94cfcd10750ed776c",
    "personal": "7cd3e189302376e8c758d7e8ac4d6488c5c040da701841eb6368bf23d234a8c9",
    "mixed": "461beb280e3448f67fb5ddf00f51d1deaa4368ebdf0cca56b179c39624d17d99",
}


def checksum(documents: Sequence[Document]) -> str:
    """SHA-256 of the canonical JSON of documents: ids, texts, spans and registers."""
    canonical = json.dumps([asdict(document) for document in documents], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@lru_cache(maxsize=len(CHECKSUMS))
def check_pinned(register: str) -> None:
    """Checks that the evaluation documents are those that everybody else evaluates on.

    Raises:
        ConfigError: if the register is unknown or its evaluation set differs from the pinned one.
    """
    found = checksum(generate(register, "evaluation", PINNED_DOCUMENTS, PINNED_SEED))
    if found != CHECKSUMS[register]:
        raise ConfigError(
            f"the {register} evaluation set is not the pinned one (sha256 {found[:12]} instead of "
            f"{CHECKSUMS[register][:12]}): {_cause(version('faker'))}"
        )


def _cause(installed: str) -> str:
    if installed != PINNED_FAKER:
        return f"faker {installed} is installed; install faker=={PINNED_FAKER}"
    return (
        f"the generator differs from the released one (faker {installed} is the right one); reinstall smd-research, or "
        "pin its new sets"
    )
