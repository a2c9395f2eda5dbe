"""Families that turn pairs of neighbours, change angles by layer, norm after the rotation, or keep latent values."""

import numpy as np
import pytest
import torch

from attacks.base import Public
from attacks.prompts.partial_attention_inversion import PartialAttentionInversion
from experiments.benches._shapes import small_bundle
from smd_research.boundary import Boundary
from smd_research.core.errors import UnsupportedModelError
from smd_research.data.prompts import Prompt
from smd_research.defenses.smd import Smd
from smd_research.defenses.split import Split
from smd_research.models import rotation
from smd_research.models.bundle import Bundle
from smd_research.models.decoding import plain_logits

FAMILIES = ("cohere", "glm4", "deepseek_v3", "gemma3_text", "olmo3", "hunyuan_v1_dense")


def _ids(bundle: Bundle, seed: int, rows: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(5, bundle.geometry.vocab, (rows,), generator=generator).tolist())


@pytest.fixture(scope="module", params=FAMILIES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return small_bundle(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("permute", ["none", "both"])
def test_every_cut_is_exact(bundle: Bundle, permute: str) -> None:
    prompt, continuation = _ids(bundle, 1, 28), _ids(bundle, 2, 3)
    right = plain_logits(bundle, prompt, continuation)
    for cut in range(bundle.geometry.layers + 1):
        with Split(cut, permute).prepare(bundle).deploy(Boundary()) as deployment:  # type: ignore[arg-type]
            got = deployment.score(prompt, continuation)
        assert (got - right).abs().max() / right.std() < 1e-4, cut


def test_partial_attention_inversion_reads_all(bundle: Bundle) -> None:
    prompt = _ids(bundle, 3, 16)
    prepared = Smd().prepare(bundle)
    with prepared.deploy(Boundary()) as deployment:
        deployment.generate(Prompt("p", "", prompt), 16)
        view = deployment.boundary.view(deployment.shows)
    attack = PartialAttentionInversion()
    attack.fit(Public(bundle, prepared.parameters))
    guess = attack.recover(view, np.random.default_rng(0))
    assert guess.ids == prompt
    assert guess.certified


def test_rows_that_cannot_be_moved_are_not_permuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation._Looked, "_ways", lambda *_: iter(()))
    bundle = small_bundle("llama")
    with pytest.raises(UnsupportedModelError, match="cannot be moved from one position to another"):
        Split(1, "sequence").prepare(bundle).deploy(Boundary())
