"""The logits that the provider computed follow from its record and the public weights."""

import dataclasses

import pytest
import torch

from smd_research.boundary import AdversaryView, Boundary
from smd_research.boundary.messages import PartialAttention, StartDecode
from smd_research.core.errors import NotApplicableError
from smd_research.data.prompts import Prompt
from smd_research.defenses.smd import Smd
from smd_research.models import Bundle, sources
from smd_research.models.replay import replayed_logits

PROMPT = Prompt("p", "", tuple(range(5, 21)))
NEW = 10


def observed(bundle: Bundle, defense: Smd, new: int = NEW) -> tuple[AdversaryView, torch.Tensor]:
    """A view, and the provider's true logits through the measurement tap."""
    with defense.prepare(bundle).deploy(Boundary()) as deployment:
        generation = deployment.generate(PROMPT, new)
        view = deployment.boundary.view(deployment.shows)
        return view, deployment.score(PROMPT.ids, generation.ids)[1:]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mistral"])
def test_replayed_logits_are_the_providers(family: str) -> None:
    view, true = observed(sources.random(family), Smd())
    replayed = replayed_logits(sources.random(family), view)
    assert replayed.shape == true.shape
    assert len(true) == len(view.output_ids) - 1 > 0
    torch.testing.assert_close(replayed, true, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "defense",
    [Smd(wire_dtype="bf16"), Smd(wire_dtype="fp16"), Smd(public_tokens=6), Smd(inner_layers=2)],
    ids=["bf16", "fp16", "public", "inner"],
)
def test_every_option_of_the_defense_is_replayed(defense: Smd) -> None:
    bundle = sources.random("llama")
    view, true = observed(bundle, defense)
    torch.testing.assert_close(replayed_logits(bundle, view), true, rtol=1e-5, atol=2e-6)


def test_without_the_replies_other_logits_come_out() -> None:
    bundle = sources.random("llama")
    view, true = observed(bundle, Smd())
    dropped = [
        (way, dataclasses.replace(m, a=torch.zeros_like(m.a)) if isinstance(m, PartialAttention) else m)
        for way, m in view.messages
    ]
    lacking = dataclasses.replace(view, messages=tuple(dropped))
    assert (replayed_logits(bundle, lacking) - true).abs().max() > 1e-3


def test_nothing_decoded_is_nothing_replayed() -> None:
    bundle = sources.random("llama")
    view, _ = observed(bundle, Smd(), new=1)
    assert replayed_logits(bundle, view).shape == (0, bundle.geometry.vocab)


def test_a_record_that_does_not_determine_them_is_refused() -> None:
    bundle = sources.random("llama")
    view, _ = observed(bundle, Smd())
    two = dataclasses.replace(view, outputs=view.outputs * 2)
    later = [(way, dataclasses.replace(m, turn=2) if isinstance(m, StartDecode) else m) for way, m in view.messages]
    for wrong in (two, dataclasses.replace(view, messages=tuple(later))):
        with pytest.raises(NotApplicableError, match="one stream of a request that stands alone"):
            replayed_logits(bundle, wrong)
