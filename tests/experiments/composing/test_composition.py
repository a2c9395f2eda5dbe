"""A cell composed upon what its words choose is the cell that Hydra composes from nothing."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.composing import composition as module
from experiments.composing.cells import plain
from experiments.composing.composition import composition
from experiments.composing.declared import declared
from experiments.composing.overrides import groups
from experiments.composing.products import expand
from smd_research.core.paths import conf_dir


@pytest.fixture(autouse=True)
def started() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def from_nothing(words: list[str]) -> tuple[Any, dict[str, Any]]:
    cfg: Any = compose("config", overrides=words, return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg, choices


def outcome(compose: Callable[[list[str]], Any], words: list[str]) -> Any:
    """What is composed, or what is said instead."""
    try:
        return compose(words)
    except (HydraException, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("table", groups(conf_dir())["table"])
def test_cells_of_a_table_are_what_hydra_composes(table: str) -> None:
    node = compose("table", overrides=[f"table={table}"]).table
    cells = expand(declared(plain(node), "small").sweep, ["n_prompts=3"])
    for words in random.Random(0).sample(cells, min(3, len(cells))):
        cfg, choices = composition(words)
        whole, chosen = from_nothing(words)
        assert (cfg, choices) == (whole, chosen)
        assert OmegaConf.to_container(cfg) == OmegaConf.to_container(whole), "interpolations too"


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1", "seed=2", "defense=split", "defense.layer=2"],
        ["defense.layer=2", "defense=split"],
        ["experiment=[demo,smoke]", "n_prompts=5"],
        ["+defense.odd=1"],
        ["++seed=3"],
        ["~trainer.max_steps"],
        ["attack=null"],
        ["results_dir='${oc.env:HOME}/x'"],
        ["hydra.job.chdir=true", "seed=4"],
        ["seed='a b'", "logger=csv"],
        ["defense=po", "defense.fakes=7", "defense.construction=multiplexed"],
        ["data.registers=[letters,notes]"],
    ],
    ids=" ".join,
)
def test_odd_words_compose_as_hydra_composes_them(words: list[str]) -> None:
    whole, found = outcome(from_nothing, words), outcome(composition, words)
    assert found == whole


def test_a_misspelt_key_is_hydras_error() -> None:
    with pytest.raises(HydraException, match="Could not override 'n_promts'"):
        composition(["n_promts=3"])
    with pytest.raises(HydraException, match=r"defense\.fakse"):
        composition(["defense=po", "defense.fakse=3"])


def test_what_is_chosen_is_composed_once_and_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(module, "compose", lambda *args, **more: calls.append(args) or compose(*args, **more))
    first, _ = composition(["defense=split", "seed=1"])
    first.seed = 99
    again, _ = composition(["defense=split", "seed=2"])
    assert again.seed == 2
    assert composition(["defense=split"])[0].seed == 0
    assert len(calls) == 2, "the groups, and what these words choose"
