"""The benches of weight decomposition's protocol: what they count is right, and they can find fault."""

import pytest
import torch

from experiments.benches import slip_protocol, slip_tampering
from experiments.benches._pipelines import Pipeline, pipelines
from experiments.benches._slip_batches import random_prompts, steps
from experiments.benches.case import Settings
from smd_research.boundary import Boundary
from smd_research.defenses.slip import Slip, SlipDeployment
from smd_research.mechanisms.integers.field import FIELDS
from smd_research.models.decoding import plain_greedy

LLAMA = Pipeline("llama", "wide")


def test_masks_change_no_output_and_float_masks_do() -> None:
    measured = slip_protocol.compared(Settings(), LLAMA, batch=2, new=3)
    assert (measured.value, measured.extra["differing_logits"]) == (0, 0)
    assert measured.extra["compared_tokens"] == 6
    bundle = LLAMA.bundle(Settings())
    prompts = random_prompts(bundle, 2, 4, 0)
    with LLAMA.deploy(bundle, Settings()) as exact, _float_masked() as rounded:
        assert slip_protocol.differing(exact.keeper, rounded.keeper, prompts, 3)[0] == 6


def _float_masked() -> SlipDeployment:
    made = Slip(masking="float", verify=0).prepare(LLAMA.bundle(Settings())).deploy(Boundary(record=False))
    assert isinstance(made, SlipDeployment)
    return made


def test_a_batch_decodes_as_its_prompts_one_by_one() -> None:
    bundle = LLAMA.bundle(Settings())
    prompts = random_prompts(bundle, 2, 4, 1)
    with LLAMA.deploy(bundle, Settings()) as deployment:
        tokens = torch.stack([logits.argmax(-1) for logits in steps(deployment.keeper, prompts, 3)], 1)
    assert [tuple(row) for row in tokens.tolist()] == [plain_greedy(bundle, ids, 3) for ids in prompts.tolist()]


@pytest.mark.parametrize("field", ["wide", "narrow"])
def test_the_costs_of_a_token_are_those_of_the_formula(field: str) -> None:
    pipeline = Pipeline("llama", field)
    bundle = pipeline.bundle(Settings())
    with pipeline.deploy(bundle, Settings()) as deployment:
        for _ in range(2):  # the ledger and the bank start anew with each request
            found = slip_protocol.costs(deployment, FIELDS[field].prime.bit_length(), 3).extra
        heights = sum(product.height for product in deployment.parts.products)
        widths = sum(product.width for product in deployment.parts.products)
        assert found["rounds_per_token"] == len(deployment.parts.products) + 1
    bits = {"wide": 41, "narrow": 33}[field]
    assert (found["sent_bytes"], found["returned_bytes"]) == (8 * widths, 8 * heights)
    assert found["traffic_bytes"] == found["formula_bytes"]
    assert (found["packed_sent_bytes"], found["packed_returned_bytes"]) == (widths * bits / 8, heights * bits / 8)
    assert found["stored_bytes"] == 8 * heights
    assert found["offline_mflop"] == pytest.approx(found["offload_mflop"])


@pytest.mark.parametrize("field", ["wide", "narrow"])
@pytest.mark.parametrize(("verify", "share"), [(0, 0.0), (2, 1.0)])
def test_tampering_is_refused_where_replies_are_checked(field: str, verify: int, share: float) -> None:
    measured = slip_tampering.tampered(Settings(), Pipeline("gpt2", field), verify, errors=20, new=2)
    assert measured.value == share
    assert measured.extra["refused_honest"] == 0
    for kind, tried in {"element": 20, "offset": 34, "zeros": 34, "replay": 17, "swapped": 32}.items():
        assert (measured.extra[f"{kind}_share"], measured.extra[f"{kind}_tried"]) == (share, tried)
    assert measured.extra["tried"] == 137
    assert measured.extra["passed"] == (1 - share) * 137


def test_every_pipeline_has_its_cases_before_anything_is_decomposed() -> None:
    names = [pipeline.name for pipeline in pipelines("small")]
    assert len(set(names)) == 10
    found = [case.name for case in slip_protocol.cases(Settings())]
    assert found == [f"{name} {part}" for name in names for part in ("exactness", "costs")]
    assert len(list(slip_tampering.cases(Settings()))) == 30
