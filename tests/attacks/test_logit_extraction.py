"""Logits give the width and the space of the output layer, whatever else is secret."""

import numpy as np
import pytest
import torch

from attacks.base import Public
from attacks.weights.logit_extraction import LogitExtraction, output_space
from smd_research.boundary import AdversaryView, Boundary
from smd_research.core.errors import NotApplicableError
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import Slip
from smd_research.models import sources


def served(family: str, requests: int) -> tuple[Public, list[AdversaryView]]:
    boundary, views = Boundary(), []
    prepared = Slip(rank=4, visibility="boundary").prepare(sources.random(family))
    with prepared.deploy(boundary) as deployment:
        for number in range(requests):
            deployment.generate(Prompt("p", "", tuple(range(9 + 40 * number, 41 + 40 * number))), 4)
            views.append(boundary.view(deployment.shows))
        return Public(prepared.public, "slip", prepared.parameters), views


@pytest.mark.parametrize(("family", "width"), [("llama", 64), ("gpt2", 63)])
def test_width_and_output_space_come_out_of_logits(family: str, width: int) -> None:
    """A LayerNorm without bias, as in a fresh GPT-2, leaves one direction out."""
    public, views = served(family, 3)
    attack = LogitExtraction()
    attack.fit(public)
    guess = attack.restore(views, np.random.default_rng(0))
    assert guess.facts["width_found"] == width
    assert guess.facts["head_overlap"] > width / 64 - 1e-3
    assert guess.facts["logit_vectors"] == 3 * 35
    assert guess.residual is not None
    assert guess.residual < 1e-2


def test_logits_are_those_of_the_whole_model() -> None:
    public, views = served("llama", 1)
    attack = LogitExtraction()
    attack.fit(public)
    ids = torch.tensor([[*range(9, 41), *views[0].output_ids[:-1]]])
    with torch.inference_mode():
        true = sources.random("llama").model(input_ids=ids).logits[0].double()
    assert torch.allclose(attack._logits(views[0]), true, atol=1e-3)


def test_numbers_without_a_head_behind_them_have_no_such_space() -> None:
    """Negative control: independent values fill every direction."""
    rng = np.random.default_rng(0)
    _, gap = output_space(torch.from_numpy(rng.standard_normal((100, 300))))
    assert gap > 0.5


def test_too_few_logits_are_named() -> None:
    public, views = served("llama", 1)
    attack = LogitExtraction()
    attack.fit(public)
    with pytest.raises(NotApplicableError, match="serve more prompts"):
        attack.restore(views, np.random.default_rng(0))
