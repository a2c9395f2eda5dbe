"""A promise that is kept is not refuted, one that is not is: by tokens, by texts, by classes, by canaries."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from attacks.base import GuaranteeAttack, Public
from attacks.guarantees.canaries import Canaries
from attacks.guarantees.distinguishing import Distinguishing
from smd_research.core.claim_audit import ClaimAudit
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.defenses.base import Defense, PublicText
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.dp_rewrite import DpRewrite
from smd_research.defenses.dp_text import DpText
from smd_research.defenses.split_denoise import SplitDenoise
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse
from smd_research.mechanisms.rewriting.parameters import RewriteParameters
from smd_research.metrics.guarantees import audit_metrics, weakest
from smd_research.models import Bundle, sources
from smd_research.training.methods import DpSgd

CORPUS = tuple(tuple(range(5 + i, 21 + i)) for i in range(300))
EFFORT = {"inputs": 64, "draws": 2000, "texts": 4, "text_tokens": 6}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return sources.random("llama")


def refuted(attack: GuaranteeAttack, *published: object, bundle: Bundle) -> Sequence[ClaimAudit]:
    attack.fit(Public(bundle, "test", published, CORPUS))
    return attack.refute(np.random.default_rng(0))


def prepared(defense: Defense, bundle: Bundle) -> tuple[object, ...]:
    return defense.prepare(bundle, PublicText(CORPUS)).parameters


@pytest.mark.parametrize("mechanism", ["santext", "tem", "dchi", "mahalanobis"])
def test_a_metric_promise_is_kept(bundle: Bundle, mechanism: str) -> None:
    found = refuted(Distinguishing(**EFFORT), *prepared(DpText(mechanism, 8.0), bundle), bundle=bundle)  # type: ignore[arg-type]
    assert all(one.holds for one in found)
    assert weakest(found).measured <= 8.0


def test_a_promise_across_sets_is_not(bundle: Bundle) -> None:
    within, across = refuted(Distinguishing(**EFFORT), *prepared(DpText("custext", 2.0), bundle), bundle=bundle)
    assert (within.holds, across.holds) == (True, False)
    assert weakest((within, across)) is across
    assert "measured_epsilon" not in audit_metrics(across), "nothing bounds it, and no record holds an infinity"


def test_a_text_written_anew_keeps_what_its_clip_promises(bundle: Bundle) -> None:
    (known,) = prepared(DpRewrite(epsilon=2.0), bundle)
    assert isinstance(known, RewriteParameters)
    kept, broken = (
        refuted(Distinguishing(**EFFORT), replace(known, clipped=clipped), bundle=bundle) for clipped in (True, False)
    )
    assert kept[0].holds
    assert not broken[0].holds
    assert broken[0].verdict.startswith("refuted by ")


def test_the_answers_of_randomised_response_cost_their_epsilon(bundle: Bundle) -> None:
    (found,) = refuted(Distinguishing(**EFFORT), RandomisedResponse(1.5, 4), bundle=bundle)
    assert found.measured == pytest.approx(1.5)
    assert (found.holds, found.exact, found.n) == (True, True, 6)


@pytest.mark.parametrize(
    ("kept", "broken"),
    [
        (DpHidden(epsilon=2.0, clip=1.0), DpHidden(epsilon=2.0, clip=1.0, calibration="released")),
        (DpHidden(layer=1, epsilon=2.0, clip=0.4), DpHidden(layer=1, epsilon=2.0, clip=0.4, calibration="released")),
        (SplitDenoise(epsilon=2.0, steps=0), SplitDenoise(epsilon=2.0, steps=0, sampler="released")),
    ],
    ids=["a row", "a message", "radial"],
)
def test_noise_on_vectors_is_held_to_what_is_claimed_of_it(bundle: Bundle, kept: Defense, broken: Defense) -> None:
    """A message of one row, at this clip, would not show it: its norms are below one half."""
    for defense, holds in ((kept, True), (broken, False)):
        exact, *played = refuted(Distinguishing(**EFFORT), *prepared(defense, bundle), bundle=bundle)
        assert exact.holds is holds
        assert all(one.holds or not holds for one in played)
        assert weakest((exact, *played)) is exact


@pytest.mark.parametrize("options", [{"inputs": 1}, {"draws": 999}, {"texts": 0}, {"text_tokens": 1}])
def test_an_audit_of_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="attack: inputs"):
        Distinguishing(**{**EFFORT, **options})


def test_a_game_of_few_canaries_is_refused() -> None:
    with pytest.raises(ConfigError, match="canaries are 16 or more"):
        Canaries(15, 8, 8, 2, 0.95)


def test_without_a_promise_there_is_nothing_to_refute(bundle: Bundle) -> None:
    for attack in (Distinguishing(**EFFORT), Canaries(16, 8, 8, 2, 0.95)):
        with pytest.raises(NotApplicableError):
            refuted(attack, bundle=bundle)


def test_texts_too_short_are_refused_in_a_line(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="two are needed"):
        refuted(Distinguishing(**{**EFFORT, "text_tokens": 40}), *prepared(DpRewrite(), bundle), bundle=bundle)


def test_canaries_do_not_refute_a_training_that_keeps_its_promise(bundle: Bundle) -> None:
    pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")
    options = {"steps": 4, "batch": 8, "learning_rate": 1e-3, "warmup": 0.0, "weight_decay": 0.0, "clip": 0.5}
    tuning = DpSgd(**options, pooling="last", head="linear", checks=1, epsilon=1.0, delta=1e-3)  # type: ignore[arg-type]
    (found,) = refuted(Canaries(32, 8, 24, 2, 0.95), tuning, bundle=bundle)
    assert found.holds
    assert audit_metrics(found)["canary_advantage"].low <= 0
    assert (found.exact, found.n, found.verdict) == (False, 32, "not refuted")
    assert 0.9 < found.claimed <= 1
