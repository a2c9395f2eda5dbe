"""Tampered replies tell hidden values where nothing checks them; one check ends the session at the first."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch

from attacks.base import Public
from attacks.weights.tampering_oracle import TamperingOracle, comparisons
from experiments.trials.impersonating import impersonated
from experiments.trials.pursuit import Impersonated
from smd_research.boundary import Boundary
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import PublicText
from smd_research.defenses.slip import Slip, SlipPrepared
from smd_research.models import sources
from smd_research.models.bundle import Bundle

NEW = 8
PROMPTS = tuple(Prompt(str(n), "", tuple(range(5 + n, 15 + n))) for n in range(3))
DOWN = 3  # of the first block: qkv, o, gate and up, down


@cache
def bundle() -> Bundle:
    return sources.embedded()  # a trained one: what a product may be at most is next to nothing in a random one


@cache
def slip(verify: int) -> SlipPrepared:
    return Slip(rank=4, verify=verify).prepare(bundle(), PublicText([tuple(range(5, 60))]))


@cache
def honest() -> tuple[Public, tuple[tuple[int, ...], ...]]:
    """What is public, and what an honest device's users get."""
    with slip(0).deploy(Boundary()) as deployment:
        answers = tuple(deployment.generate(prompt, NEW).ids for prompt in PROMPTS)
        return Public(slip(0).public, "slip", slip(0).parameters), answers


def attacked(attack: TamperingOracle, verify: int) -> list[Impersonated]:
    public, _ = honest()
    attack.fit(public)
    impostor = attack.impostor(public)
    options = {"max_new_tokens": NEW, "transport": "inproc", "threads": 1}
    return impersonated(slip(verify), PROMPTS, impostor, **options)  # type: ignore[arg-type]


@torch.inference_mode()
def logits(ids: Sequence[int]) -> torch.Tensor:
    return bundle().model(input_ids=torch.tensor([list(ids)])).logits[0, -1]


def test_every_token_answers_which_of_two_hidden_logits_is_larger() -> None:
    attack = TamperingOracle()
    served = attacked(attack, verify=0)
    right = []
    for prompt, one in zip(PROMPTS, served, strict=True):
        assert not one.refused
        for read in comparisons(one.view, attack._plan):
            true = logits((*prompt.ids, *one.view.output_ids[: read.step]))
            right.append(bool(true[read.larger] > true[read.smaller] - 1e-3))
    assert len(right) == NEW * len(PROMPTS)
    assert all(right)
    facts = attack.restore([one.view for one in served], np.random.default_rng(0)).facts
    assert facts == {"tampered_replies": NEW, "comparisons_read": NEW}


def test_one_check_ends_the_session_at_the_first_tampered_reply() -> None:
    """Negative control: nothing is read, and the trusted side knows."""
    attack = TamperingOracle()
    served = attacked(attack, verify=2)
    assert all(one.refused for one in served)
    assert attack.restore([one.view for one in served], np.random.default_rng(0)).facts == {
        "tampered_replies": 1,
        "comparisons_read": 0,
    }


@pytest.mark.parametrize(("verify", "noticed"), [(0, False), (2, True)])
def test_an_inner_coordinate_moves_the_output_unless_replies_are_checked(verify: int, noticed: bool) -> None:
    _, answers = honest()
    served = attacked(TamperingOracle(product=DOWN, coordinate=7, magnitude=1.0), verify)
    assert [one.refused for one in served] == [noticed] * len(PROMPTS)
    changed = [one.view.output_ids != answer for one, answer in zip(served, answers, strict=True)]
    assert all(changed)


def test_a_share_too_small_to_matter_changes_nothing() -> None:
    _, answers = honest()
    served = attacked(TamperingOracle(product=DOWN, magnitude=1e-9), verify=0)
    assert [one.view.output_ids for one in served] == list(answers)


def test_what_cannot_be_run_is_named() -> None:
    public, _ = honest()
    with pytest.raises(ConfigError, match="magnitude"):
        TamperingOracle(product=1, magnitude=0)
    with pytest.raises(ConfigError, match="-1 to 1"):
        TamperingOracle(product=1, magnitude=2.0)
    with pytest.raises(ConfigError, match="count from 0"):
        TamperingOracle(product=-1)
    with pytest.raises(NotApplicableError, match="numbered"):
        TamperingOracle(product=99).fit(public)
    with pytest.raises(NotApplicableError, match="outputs"):
        TamperingOracle(product=DOWN, coordinate=10**6).fit(public)
    with pytest.raises(NotApplicableError, match="asks for none"):
        TamperingOracle().fit(Public(bundle(), "none"))
