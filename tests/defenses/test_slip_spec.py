"""Which layers are protected, how much of them, and what it costs in closed form."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from smd_research.core.errors import ConfigError, UnsupportedModelError
from smd_research.core.seeds import generator
from smd_research.defenses.slip.accounting import Sizes, cost
from smd_research.defenses.slip.sensitivity import mean_loss
from smd_research.defenses.slip.spec import SplitSpec
from smd_research.mechanisms.decomposition.hidden_subspace import overlaps
from smd_research.mechanisms.decomposition.splits import split
from smd_research.models.bundle import Bundle
from smd_research.models.linears import linear_layers, place_of, weight_of, with_weights
from smd_research.models.sources import embedded_tokenizer, random

CORPUS = [[7, 8, 9, 10, 11, 12] * 4] * 3


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return random("llama")


def chosen(spec: SplitSpec, bundle: Bundle, corpus: Sequence[Sequence[int]] = CORPUS) -> dict[str, int]:
    return {name: rank for name, rank in spec.ranks(bundle, corpus).items() if rank}


@pytest.mark.parametrize(
    ("targets", "matrices"),
    [
        ("all", "q k v o gate up down"),
        ("attention", "q k v o"),
        ("mlp", "gate up down"),
        ("qk", "q k"),
        ("vo", "v o"),
        ("down", "down"),
        ("qk+down", "q k down"),
    ],
)
def test_targets(llama: Bundle, targets: str, matrices: str) -> None:
    ranks = chosen(SplitSpec(targets=targets, rank=4), llama)
    assert {place_of(name).matrix for name in ranks} == set(matrices.split())
    assert len(ranks) == llama.geometry.layers * len(matrices.split())
    assert set(ranks.values()) == {4}


def test_one_layer_and_some_blocks(llama: Bundle) -> None:
    name = "model.layers.2.mlp.up_proj"
    assert chosen(SplitSpec(targets=name, rank=3), llama) == {name: 3}
    some = chosen(SplitSpec(targets="o", blocks=[0, 3]), llama)
    assert [place_of(name).block for name in some] == [0, 3]
    assert list(SplitSpec(targets=name).ranks(llama)) == list(linear_layers(llama))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (SplitSpec(targets="embedding"), "targets=embedding.*mlp.*gate"),
        (SplitSpec(targets="qkv"), "targets=qkv.*down, gate, k, o, q, up, v"),
        (SplitSpec(rank=33), "rank=33.*k_proj.*32"),
        (SplitSpec(blocks=[4]), r"blocks=\[4\].*0 to 3"),
        (SplitSpec(blocks=[]), r"blocks=\[\]"),
        (SplitSpec(targets="model.layers.2.mlp.up_proj", blocks=[0]), "selects nothing in blocks"),
        (SplitSpec(rule="budget", budget=1e-6), "budget=1e-06"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(llama: Bundle, spec: SplitSpec, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        spec.ranks(llama, CORPUS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_fused_projections_have_no_queries(family: str) -> None:
    assert chosen(SplitSpec(targets="qkv"), random(family))
    with pytest.raises(ConfigError, match="qkv"):
        SplitSpec(targets="qk").ranks(random(family))


@pytest.mark.parametrize(
    "options", [{"rule": "best"}, {"kind": "qr"}, {"rank": -1}, {"energy": 0.0}, {"energy": 1.5}, {"budget": 0.0}]
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"give|use one of"):
        SplitSpec(**options)  # type: ignore[arg-type]


def test_experts_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="gpt_oss"):
        SplitSpec().ranks(random("gpt_oss"))


def test_energy_gives_each_matrix_its_own_rank(llama: Bundle) -> None:
    layers = linear_layers(llama)
    loud = "model.layers.1.self_attn.o_proj"
    spiked = weight_of(layers[loud]) + 5 * torch.ones(64, 64) / 64
    ranks = SplitSpec(rule="energy", energy=0.4).ranks(with_weights(llama, {loud: spiked}))
    assert ranks[loud] == 1
    assert all(rank > 5 for name, rank in ranks.items() if name != loud)


def test_budget_buys_what_hurts_most(llama: Bundle) -> None:
    """Of matrices of one price the one whose absence costs most, and no more than the budget pays for."""
    layers = linear_layers(llama)
    downs = {name: weight_of(layer) for name, layer in layers.items() if "down_proj" in name}
    loud = "model.layers.2.mlp.down_proj"
    bundle = with_weights(llama, {loud: 40 * downs[loud]})
    plain = mean_loss(bundle, CORPUS)
    held = {name: weight_of(linear_layers(bundle)[name]) for name in downs}
    without = {name: split(weight, 8, "svd", generator(0)).exposed for name, weight in held.items()}
    gains = {name: mean_loss(with_weights(bundle, {name: rest}), CORPUS) - plain for name, rest in without.items()}
    order = sorted(gains, key=lambda name: -gains[name])
    share = 8 * (64 + 128) / sum(weight_of(layer).numel() for layer in layers.values())
    for count in (1, 2, 3):
        spec = SplitSpec(targets="down", rule="budget", budget=(count + 0.5) * share)
        assert set(chosen(spec, bundle)) == set(order[:count])


def test_budget_needs_text(llama: Bundle) -> None:
    with pytest.raises(ConfigError, match="train split"):
        SplitSpec(rule="budget").ranks(llama, [])


def test_loss_ignores_what_pads_it(llama: Bundle) -> None:
    short, long = [3, 4, 5], list(range(20, 31))
    alone = [mean_loss(llama, [row]) for row in (short, long)]
    together = (2 * alone[0] + 10 * alone[1]) / 12
    assert math.isclose(mean_loss(llama, [short, long]), together, rel_tol=1e-5)


def test_overlap_of_layers(llama: Bundle) -> None:
    ranks = SplitSpec(targets="mlp", blocks=[1], rank=4).ranks(llama)
    layers = linear_layers(llama)
    parts = {
        name: split(weight_of(layers[name]), 4, "svd", generator(0)).exposed for name, rank in ranks.items() if rank
    }
    for held, low, high in ((llama, 0, 0.3), (with_weights(llama, parts), 0.999, 1.001)):
        found = overlaps(llama, held, ranks)
        assert list(found) == list(parts)
        assert all(low <= value <= high for value in found.values())


def on_meta(kind: str, **sizes: int) -> Sizes:
    config = CONFIG_MAPPING[kind](**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return Sizes.of(Bundle.of(kind, model, embedded_tokenizer()))


def share(sizes: Sizes, rank: int) -> float:
    return round(100 * cost(sizes, dict.fromkeys(sizes.matrices, rank), 1).secure_share, 2)


@pytest.fixture(scope="module")
def gpt2() -> Sizes:
    return on_meta("gpt2")


@pytest.fixture(scope="module")
def llama2_7b() -> Sizes:
    return on_meta("llama", hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008)


def test_secure_parameters_of_known_models(gpt2: Sizes, llama2_7b: Sizes) -> None:
    assert [share(gpt2, k) for k in (8, 32)] == [1.39, 5.56]
    assert [share(llama2_7b, k) for k in (8, 32, 64, 128)] == [0.31, 1.23, 2.47, 4.94]
    phi2 = on_meta("phi", hidden_size=2560, num_hidden_layers=32, num_attention_heads=32, intermediate_size=10240)
    assert cost(phi2, dict.fromkeys(phi2.matrices, 32), 1).secure_share == pytest.approx(
        0.01875
    )  # with queries, keys and values apart
    sums = [cost(sizes, {}, 1).linear_params / 1e6 for sizes in (gpt2, phi2, llama2_7b)]
    assert np.round(sums, 1).tolist() == [84.9, 2516.6, 6476.0]


def test_traffic_and_masks_of_known_models(gpt2: Sizes, llama2_7b: Sizes) -> None:
    small, large = (cost(sizes, {}, 1, head=False) for sizes in (gpt2, llama2_7b))
    assert (small.mask_elements, large.mask_elements) == (82_944, 1_359_872)
    assert (small.sent_elements, large.sent_elements) == (147_456, 2_105_344)
    assert (small.rounds, large.rounds) == (48, 128)
    assert large.offline_flops == large.device_flops == 2 * large.linear_params


def test_attention_outweighs_the_secret_parts(gpt2: Sizes, llama2_7b: Sizes) -> None:
    for sizes, percent in ((gpt2, 22.2), (llama2_7b, 4.1)):
        found = cost(sizes, dict.fromkeys(sizes.matrices, 32), 1024, head=False)
        assert round(100 * found.attention_flops / found.device_flops, 1) == percent
        assert found.attention_flops > found.rank_flops
        assert found.trusted_flops == sum(
            (found.rank_flops, found.attention_flops, found.verify_flops, found.mask_flops)
        )


def test_the_head_and_the_checks_are_counted(llama: Bundle) -> None:
    sizes = Sizes.of(llama)
    ranks = dict.fromkeys(sizes.matrices, 2)
    bare, checked = (cost(sizes, ranks, 16, repetitions=t, head=False) for t in (0, 2))
    ends = sum(sum(sizes.matrices[n][0] for n in names) + sizes.matrices[names[0]][1] for names in sizes.products)
    assert (bare.verify_flops, checked.verify_flops) == (0, 4 * ends)
    headed = cost(sizes, ranks, 16)
    assert headed.head_flops == headed.offline_flops - checked.offline_flops == 2 * 4096 * 64
    assert (headed.rounds, headed.mask_elements) == (checked.rounds + 1, checked.mask_elements + 4096)


def test_without_masks_only_layers_with_a_secret_part_are_asked_for(llama: Bundle) -> None:
    sizes = Sizes.of(llama)
    found = cost(sizes, SplitSpec(targets="q", blocks=[0]).ranks(llama), 16, masked=False)
    assert (found.rounds, found.offline_flops, found.attention_flops) == (1, 0, 0)
    assert found.trusted_flops == found.rank_flops == 2 * found.secure_params == 2 * 8 * (64 + 64)
