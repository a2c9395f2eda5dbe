"""Every shipped configuration composes, says what it is, and fits what it configures."""

import inspect
import re
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from experiments.commands.bench import names
from experiments.commands.table import plans
from experiments.composing.app import VERSION_BASE
from experiments.composing.catalogue import description
from experiments.composing.cells import composed as planned
from experiments.composing.cells import plan, values_of
from experiments.composing.checking import IdleOptionWarning, configured
from experiments.composing.components import NOTES, options_of
from experiments.composing.declared import declared, resolve
from experiments.composing.overrides import check_choices, groups, parse
from experiments.composing.products import of_experiment
from smd_research.core.cell import COMPONENTS, OPTIONAL, plain
from smd_research.core.paths import conf_dir

FOLDER = conf_dir()
OPTIONS = [(group, option) for group, options in groups(FOLDER).items() for option in options]
PARTS = [(group, option) for group, option in OPTIONS if group in (*COMPONENTS, *OPTIONAL)]
BUILT = [(group, option) for group, option in PARTS if (group, option) != ("attack", "none")]
NEEDED = {
    ("model", "hub"): ["model.name=gpt2"],
    ("model", "local"): ["model.path=/nowhere"],
    ("model", "gguf"): ["model.path=/nowhere.gguf"],
    ("data", "jsonl"): ["data.path=/nowhere.jsonl"],
    ("data", "csv"): ["data.path=/nowhere.csv"],
    ("data", "text"): ["data.path=/nowhere.txt"],
    ("data", "hub"): ["data.name=nobody/nothing"],
    ("task", "file"): ["task.train_path=/nowhere.csv"],
    **{("tuning", option): ["task=note_type"] for option in groups(FOLDER)["tuning"]},
}


@pytest.fixture(autouse=True, scope="module")
def _hydra() -> Iterator[None]:
    """Hydra started once: what it has composed of some choices is kept as long."""
    with initialize_config_dir(str(FOLDER), version_base=VERSION_BASE):
        yield


@cache
def composed(*overrides: str, config: str = "config") -> Any:
    """A configuration, composed once for all tests: nobody changes it."""
    cfg = compose(config, overrides=list(overrides), return_hydra_config=True)
    OmegaConf.set_readonly(cfg, True)
    return cfg


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is(group: str, option: str) -> None:
    text = description(FOLDER / group / f"{option}.yaml")
    assert 10 < len(text) < 160


@pytest.mark.parametrize(("group", "option"), PARTS)
def test_every_part_composes_into_a_cell(group: str, option: str) -> None:
    cfg = composed(f"{group}={option}", *NEEDED.get((group, option), []))
    cell = plan(configured(cfg), cfg.hydra.runtime.choices, []).cell
    assert getattr(cell, group)["name"]
    assert len(cell.id) == 16


def constructor(group: str, option: str) -> tuple[str, dict[str, Any], inspect.Signature]:
    """The class that a part is built from, the options its YAML names, and what the class takes."""
    cfg = composed(f"{group}={option}", *NEEDED.get((group, option), []))
    node = OmegaConf.to_container(cfg[group], resolve=True)
    assert isinstance(node, dict)
    options = options_of({str(key): value for key, value in node.items()})
    target = str(options.pop("_target_"))
    module, _, name = target.rpartition(".")
    return target, options, inspect.signature(getattr(import_module(module), name))


@pytest.mark.parametrize(("group", "option"), BUILT)
def test_every_part_fits_its_constructor(group: str, option: str) -> None:
    _, options, signature = constructor(group, option)
    signature.bind(**options)
    settable = {p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
    # A default that stands only in the code could change without changing the identity of a cell.
    given = {"device", "dtype"} if group == "model" else set()
    assert settable - given <= set(options), "name every option in the YAML"


@pytest.mark.parametrize("group", sorted({group for group, _ in BUILT}))
def test_a_default_of_the_code_is_that_of_the_configuration(group: str) -> None:
    """Of several options with one class (``data=clinical``, ``data=synthetic``) the one that changes least."""
    differ: dict[str, list[list[str]]] = {}
    for option in (option for other, option in BUILT if other == group):
        target, options, signature = constructor(group, option)
        defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
        found = [name for name, value in defaults.items() if name in options and plain(value) != options[name]]
        differ.setdefault(target, []).append(found)
    assert {target: min(found, key=len) for target, found in differ.items() if all(found)} == {}


@pytest.mark.parametrize("group", [*COMPONENTS, *OPTIONAL, "architecture", "logger"])
def test_every_option_of_a_component_says_what_it_is(group: str) -> None:
    for path in (FOLDER / group).glob("*.yaml"):
        text = re.sub(rf"^( *)(?:{'|'.join(NOTES)}):\n(?:\1 +.*\n)+", "", path.read_text(encoding="utf-8"), flags=re.M)
        for line in text.splitlines():
            option = re.match(r" *(\w+): *\S", line)
            if option and option[1] not in ("_target_", *NOTES):
                assert " # " in line, f"{path}: {line}"


SITUATIONS = ("clinic_cloud", "edge_device", "tuning_service")


@pytest.mark.parametrize("experiment", ["demo", "real", *SITUATIONS])
def test_every_cell_that_an_experiment_lists_composes_and_no_word_of_it_is_idle(experiment: str) -> None:
    cells = of_experiment(composed(f"experiment={experiment}").cells, [f"experiment={experiment}"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdleOptionWarning)
        found = {planned(cell).cell.id for cell in cells}
    assert len(found) == len(cells) > 1


@pytest.mark.parametrize("experiment", SITUATIONS)
def test_a_situation_is_a_setting_for_another_model_and_for_a_cell_of_ones_own(experiment: str) -> None:
    blocks = composed(f"experiment={experiment}").cells
    plain_cells = [planned(cell).cell for cell in of_experiment(blocks, [])]
    real = [planned(cell).cell for cell in of_experiment(blocks, ["model=random"])]
    assert [cell.defense for cell in real] == [cell.defense for cell in plain_cells]
    assert {cell.model["name"] for cell in real} == {"random-llama"}
    words = ["defense=none", "attack=reading", *(["tuning=full"] if plain_cells[0].task else [])]
    (one,) = of_experiment(blocks, words)
    cell, first = planned(one).cell, plain_cells[0]
    assert (cell.defense["name"], cell.attack["name"]) == ("none", "reading")
    assert (cell.data, cell.link, cell.task, cell.n_prompts) == (first.data, first.link, first.task, first.n_prompts)


@pytest.mark.parametrize("experiment", groups(FOLDER)["experiment"])
def test_every_experiment_composes_and_its_sweep_names_options_that_exist(experiment: str) -> None:
    cfg = composed(f"experiment={experiment}")
    if experiment == "smoke":  # brings down what other words ask for
        return
    swept = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
    check_choices(swept, FOLDER)
    assert parse(swept) or cfg.hydra.mode is None


@pytest.mark.parametrize("table", groups(FOLDER)["table"])
def test_every_table_plans_its_cells(table: str) -> None:
    node = composed(f"table={table}", config="table").table
    if node.get("benches"):
        assert set(node.benches) <= set(names())
        return
    sizes = list(node.sweep) if isinstance(node.sweep, DictConfig) else ["small"]
    assert "small" in sizes
    for size in sizes:
        cfg = composed(f"table={table}", f"size={size}", config="table")
        asked = list(plans(cfg, [f"table={table}", "n_prompts=3", f"size={size}"]).values())
        assert len({one.cell.id for one in asked}) == len(asked) > 1
        assert all(one.cell.n_prompts == 3 for one in asked if not one.cell.task)  # a task says how many itself


@pytest.mark.parametrize("table", groups(FOLDER)["table"])
def test_every_table_declares_a_view_a_figure_and_rules_that_take_their_options(table: str) -> None:
    node = values_of(composed(f"table={table}", config="table").table)
    found = declared(node, "small")
    ready = resolve(found)
    assert len(ready.claims) == len(found.claims)
    assert (ready.figure is None) is (found.figure is None)
    assert all({"claim", "expected", "source", "rule"} == set(claim) for claim in found.claims)


@pytest.mark.parametrize("table", groups(FOLDER)["table"])
def test_no_table_names_a_place_of_the_code(table: str) -> None:
    text = (FOLDER / "table" / f"{table}.yaml").read_text(encoding="utf-8")
    assert "_partial_" not in text
    assert "_target_" not in text
    assert "smd_research." not in text


def test_every_bench_is_named_in_the_configuration() -> None:
    text = (FOLDER / "bench.yaml").read_text()
    assert names()
    assert all(name in text for name in names())


def test_runtime_settings_do_not_change_the_identity() -> None:
    base = composed()
    first = plan(configured(base), base.hydra.runtime.choices, []).cell.id
    for override in (
        "device=cuda",
        "results_dir=elsewhere",
        "rerun=always",
        "threads=2",
        "logger=csv",
        "address=host:7000",
        "data.chat=false",
    ):
        cfg = composed(override)
        assert plan(configured(cfg), cfg.hydra.runtime.choices, []).cell.id == first, override


@pytest.mark.parametrize(
    "override",
    ["n_prompts=3", "seed=1", "prompt_tokens=9", "max_new_tokens=5", "dtype=bf16", "wire_dtype=fp16", "defense=none",
     "attack=none", "transport=process", "transport=tcp", "link=wan", "model=random", "attack.rounds=5",
     "data.chat=true"],
)  # fmt: skip
def test_result_settings_change_the_identity(override: str) -> None:
    base, other = composed(), composed(override)
    ids = {plan(configured(cfg), cfg.hydra.runtime.choices, []).cell.id for cfg in (base, other)}
    assert len(ids) == 2


def test_a_task_names_its_own_sizes_and_its_tuning_belongs_to_it() -> None:
    base, tuned = composed(), composed("task=urgency", "task.evaluation=50", "n_prompts=3")
    cell = plan(configured(tuned), tuned.hydra.runtime.choices, []).cell
    assert (cell.n_prompts, cell.prompt_tokens, cell.max_new_tokens) == (50, 96, 0)
    assert cell.tuning is not None
    other = composed("tuning=lora")
    ids = {plan(configured(cfg), cfg.hydra.runtime.choices, []).cell.id for cfg in (base, other)}
    assert len(ids) == 1
    elsewhere = composed("task=urgency", "task.evaluation=50", "trainer.devices=2", "trainer.strategy=ddp")
    assert plan(configured(elsewhere), elsewhere.hydra.runtime.choices, []).cell.id == cell.id


def test_no_configuration_names_a_place_of_one_machine() -> None:
    for path in Path(FOLDER).rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text, path
        assert f"{Path.home()}/" not in text, path
