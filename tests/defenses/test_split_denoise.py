"""Split-and-Denoise: what crosses is noisy and clipped, what comes back is denoised, no token is shown."""

import numpy as np
import pytest
import torch

from smd_research.boundary import Boundary
from smd_research.boundary.messages import HiddenStates
from smd_research.core.errors import ConfigError
from smd_research.core.observable import Observable
from smd_research.core.seeds import generator
from smd_research.data.prompts import Prompt
from smd_research.data.synthetic import generate
from smd_research.data.tokenise import prompts as tokenised
from smd_research.defenses.base import PublicText
from smd_research.defenses.split_denoise import SplitDenoise, SplitDenoisePrepared, noisy_rows
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.models.extension import ExtensionEngine

Corpus = tuple[tuple[int, ...], ...]
QUIET = 1e6
"""An epsilon at which noise is below rounding."""


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def embedded() -> Bundle:
    return sources.embedded()


@pytest.fixture(scope="module")
def corpus(embedded: Bundle) -> Corpus:
    return tuple(p.ids for p in tokenised(generate("mixed", "train", 48, 1), embedded.tokenizer, 24, 0))


@pytest.fixture(scope="module")
def denoised(embedded: Bundle, corpus: Corpus) -> SplitDenoisePrepared:
    defense = SplitDenoise(survival=0.5, steps=60, documents=48, draws=1, layers=1, width=64)
    return defense.prepare(embedded, PublicText(corpus))


def secrets(bundle: Bundle, count: int = 4) -> list[Prompt]:
    return tokenised(generate("mixed", "validation", count, 0), bundle.tokenizer, 16, 0)


def test_without_noise_and_clip_the_answer_is_the_models_own(llama: Bundle) -> None:
    ids = (0, *range(9, 25))
    with SplitDenoise(epsilon=QUIET, clip=1e3).prepare(llama).deploy(Boundary()) as deployment:
        got = deployment.score(ids, (7, 8, 9))
        answer = deployment.generate(Prompt("p", "", ids), 5).ids
    torch.testing.assert_close(got, plain_logits(llama, ids, (7, 8, 9)), atol=1e-2, rtol=1e-2)
    assert answer == plain_greedy(llama, ids, 5)


def test_every_row_crosses_noisy_and_clipped_and_no_token_does(llama: Bundle) -> None:
    ids, boundary = (0, *range(9, 48)), Boundary()
    prepared = SplitDenoise(epsilon=40.0).prepare(llama)
    with prepared.deploy(boundary) as deployment:
        generated = deployment.generate(Prompt("p", "", ids), 4).ids
        view = boundary.view(deployment.shows)
    sent = view.of(HiddenStates)[0::2]
    assert [len(one.hidden) for one in sent] == [40, 1, 1, 1]
    rows = torch.cat([one.hidden for one in sent])
    assert float(rows.norm(dim=-1).max()) <= prepared.mechanism.clip * (1 + 1e-5)  # type: ignore[operator]
    clean = ExtensionEngine(llama, 0).embedded(0)[[*ids, *generated[:-1]]]
    assert float((rows - clean).norm(dim=-1).min()) > 0
    assert view.outputs == ()
    assert Observable.OUTPUT_TOKENS not in view.shows


def test_the_denoiser_brings_states_nearer_to_the_clean_ones(embedded: Bundle, denoised: SplitDenoisePrepared) -> None:
    assert denoised.denoiser is not None
    texts = [prompt.ids for prompt in secrets(embedded)]
    rows = noisy_rows(embedded, texts, denoised.mechanism, 1, generator(0, "fresh"))
    mended = denoised.denoiser(rows.returned, rows.clean, rows.noise)
    before, after = (float(((one - rows.target) ** 2).mean()) for one in (rows.returned, mended))
    assert after < 0.9 * before
    alike = [float(torch.cosine_similarity(one.mean(1), rows.target.mean(1)).mean()) for one in (rows.returned, mended)]
    assert alike[1] > alike[0]


def test_the_denoiser_brings_the_next_token_nearer(embedded: Bundle, denoised: SplitDenoisePrepared) -> None:
    """Under the same noise, against what comes back as it is."""
    bare = SplitDenoisePrepared(**{**vars(denoised), "denoiser": None})
    divergence = []
    for prepared in (bare, denoised):
        found = []
        with prepared.deploy(Boundary()) as deployment:
            for prompt in secrets(embedded):
                answer = plain_greedy(embedded, prompt.ids, 4)
                right, got = (
                    torch.log_softmax(one.float(), -1)
                    for one in (plain_logits(embedded, prompt.ids, answer), deployment.score(prompt.ids, answer))
                )
                found.append(float((right.exp() * (right - got)).sum(-1).mean()))
        divergence.append(np.mean(found))
    assert divergence[1] < 0.9 * divergence[0]


def test_the_denoiser_is_kept_and_hangs_on_everything(embedded: Bundle, corpus: Corpus) -> None:
    def made(**changed: object) -> SplitDenoisePrepared:
        options = {"epsilon": 50.0, "steps": 1, "documents": 8, "draws": 1, "layers": 1, "width": 32}
        return SplitDenoise(**{**options, **changed}).prepare(embedded, PublicText(corpus))  # type: ignore[arg-type]

    first = made()
    assert made().denoiser is first.denoiser
    assert made(epsilon=51.0).denoiser is not first.denoiser
    assert made(steps=0).denoiser is None


def test_the_guarantee_is_of_the_noise_that_is_drawn(llama: Bundle) -> None:
    right, released = (
        SplitDenoise(epsilon=10.0, sampler=how).prepare(llama).guarantee for how in ("radial", "released")
    )
    assert right is not None
    assert released is not None
    assert right.notion == released.notion == "metric-DP"
    assert right.epsilon == 10.0
    assert released.epsilon == pytest.approx(10.0 * llama.geometry.width**0.5)
    assert "generated token" in str(right)


def test_a_single_noisy_text_teaches_nothing(embedded: Bundle, corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="two noisy texts or more"):
        SplitDenoise(epsilon=50.0, steps=1, documents=1, draws=1).prepare(embedded, PublicText(corpus))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "defense.epsilon=0 .*positive"),
        ({"survival": None}, r"defense\.epsilon=E, or defense\.survival=S"),
        ({"epsilon": 1.0, "clip": 0.0}, "clip=0 is out of range"),
        ({"sampler": "other"}, "sampler=other is unknown"),
        ({"steps": -1}, "steps=-1 is out of range"),
        ({"width": 40}, "a multiple of 32"),
    ],
)
def test_what_cannot_be_served_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitDenoise(**options)  # type: ignore[arg-type]
