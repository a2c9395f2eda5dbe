"""Evaluation sets are the same everywhere."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from smd_research.core.errors import ConfigError
from smd_research.data import pinned
from smd_research.data.sources import Synthetic
from smd_research.data.synthetic import generate


@pytest.mark.parametrize("register", list(pinned.CHECKSUMS))
def test_evaluation_sets_are_the_pinned_ones(register: str) -> None:
    pinned.check_pinned(register)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_train_split_does_not_depend_on_the_process(hash_seed: str) -> None:
    code = "from smd_research.data.pinned import *; print(checksum(generate('mixed', 'train', 100, 7)))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == pinned.checksum(generate("mixed", "train", 100, 7))


def test_checksum_sees_any_change() -> None:
    documents = generate("personal", "evaluation", 3)
    shorter = replace(documents[1], spans=documents[1].spans[:-1])
    assert pinned.checksum(documents) != pinned.checksum([documents[0], shorter, documents[2]])


def test_other_sets_are_refused_and_faker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned.check_pinned.cache_clear()
    monkeypatch.setitem(pinned.CHECKSUMS, "clinical", "0" * 64)
    with pytest.raises(ConfigError, match=r"the generator differs .*faker 40\.54\.0"):
        Synthetic("clinical").documents("evaluation", 1, 0)
    pinned.check_pinned.cache_clear()


def test_another_faker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned.check_pinned.cache_clear()
    monkeypatch.setitem(pinned.CHECKSUMS, "clinical", "0" * 64)
    monkeypatch.setattr(pinned, "version", lambda _: "41.0.0")
    with pytest.raises(ConfigError, match=r"faker 41\.0\.0 is installed; install faker==40\.54\.0"):
        pinned.check_pinned("clinical")
    pinned.check_pinned.cache_clear()
