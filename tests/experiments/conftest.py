"""A small lab: the shipped model on a handful of documents, few tokens."""

from pathlib import Path

import pytest
from made_documents import write_documents

TEXTS = [
    ("Patient Maria Keller was seen on Monday and takes ramipril daily since then.", "Maria Keller", "name"),
    ("Dear Tom, the rent of 740 EUR leaves my account on the first of May, as agreed.", "740 EUR", "amount"),
    ("Please transfer the balance to Jonas Weber before Friday, he is waiting for it.", "Jonas Weber", "name"),
    ("The blood pressure was 150 over 90, so Doctor Ito doubled the dose this morning.", "Ito", "name"),
    ("Call me at the office in Lisbon tonight, we have to talk about the new house.", "Lisbon", "address"),
    ("Her mother moved to Porto last spring and writes long letters about the sea.", "Porto", "address"),
]


@pytest.fixture
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of documents with one secret each."""
    return write_documents(tmp_path_factory.mktemp("data") / "notes.jsonl", TEXTS * 3)


@pytest.fixture
def small(documents: Path) -> list[str]:
    """Overrides that make a cell take a second or two."""
    return ["data=jsonl", f"data.path={documents}", "n_prompts=3", "prompt_tokens=8", "max_new_tokens=4"]
