"""A cell composed upon what its words choose is the cell that Hydra composes from nothing."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.composing import composition as module
from experiments.composing.cells import values_of
from experiments.composing.composition import composition
from experiments.composing.declared import declared
from experiments.composing.overrides import groups
from experiments.composing.products import expand
from smd_research.core.cell import COMPONENTS, OPTIONAL
from smd_research.core.paths import conf_dir

PARTS = (*COMPONENTS, *OPTIONAL)


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
    cells = expand(declared(values_of(node), "small").sweep, ["n_prompts=3"])
    for words in random.Random(0).sample(cells, min(3, len(cells))):
        cfg, choices = composition(words)
        whole, chosen = from_nothing(words)
        assert (cfg, choices) == (whole, chosen)
        assert OmegaConf.to_container(cfg) == OmegaConf.to_container(whole), "interpolations too"


def test_every_option_of_every_part_stands_where_hydra_puts_it() -> None:
    parts = {group: options for group, options in groups(conf_dir()).items() if group in (*PARTS, "logger")}
    alone = set()
    for place in range(max(map(len, parts.values()))):
        words = [f"{group}={options[place % len(options)]}" for group, options in parts.items()]
        alone.add(module._assembled(words) is not None)
        cfg, choices = composition(words)
        whole, chosen = from_nothing(words)
        assert (cfg, choices) == (whole, chosen)
        for group in parts:
            assert OmegaConf.to_yaml(cfg[group]) == OmegaConf.to_yaml(whole[group]), "in the order of the file"
    assert alone == {True, False}, "split_permuted rests on split"


def test_an_option_in_a_folder_of_ones_own_stands_alone_only_if_it_does(tmp_path: Path) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "mine.yaml").write_text("_target_: mine.Mine\nsteps: 3\n")
    (tmp_path / "attack" / "far.yaml").write_text("# @package _global_\nattack: {_target_: mine.Far}\nn_prompts: 7\n")
    (tmp_path / "attack" / "based.yaml").write_text("defaults: [random]\nsteps: 4\n")
    loader: Any = GlobalHydra.instance().config_loader()
    loader.get_search_path().prepend("mine", str(tmp_path))
    loader.repository.initialize_sources(loader.get_search_path())
    for option, alone in (("mine", True), ("far", False), ("based", False)):
        words = [f"attack={option}", "n_prompts=3"] if option != "far" else ["attack=far"]
        assert (module._assembled(words[:1]) is not None) is alone
        assert composition(words) == from_nothing(words)


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1", "seed=2", "defense=split", "defense.layer=2"],
        ["defense.layer=2", "defense=split"],
        ["defense=none", "defense=split"],
        ["defense='split'", "defense.layer=1"],
        ["defense=split_permuted", "attack=random"],
        ["defense=nowhere", "attack=random"],
        ["attack=random", "experiment=clinic_cloud"],
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
    for option, composed in (("split", 1), ("split_permuted", 2)):
        first, _ = composition([f"defense={option}", "seed=1"])
        first.seed, first.defense.layer = 99, 98
        again, _ = composition([f"defense={option}", "seed=2"])
        assert again.seed == 2
        assert again.defense.layer < 98
        assert composition([f"defense={option}"])[0].seed == 0
        assert len(calls) == composed, "what there is without words, and what does not stand alone"
