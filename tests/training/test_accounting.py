"""What DP-SGD is said to cost is what an independent accountant says, to one per cent."""

import math

import pytest

from smd_research.core.errors import ConfigError
from smd_research.training import accounting
from smd_research.training.accounting import Spending, epsilon_spent, planned_spending, usual_delta

pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")

# Texts, texts of a step, steps, delta, noise multiplier, epsilon. Made by Google's dp-accounting 0.6.0:
#   accountant = dp_accounting.pld.PLDAccountant()
#   accountant.compose(dp_accounting.PoissonSampledDpEvent(batch / n, dp_accounting.GaussianDpEvent(noise)), steps)
#   accountant.get_epsilon(delta)
ORACLE = [
    (67349, 1024, 197, 1.5e-6, 1.25, 0.9986),
    (67349, 1024, 197, 1.5e-6, 0.81, 2.9328),
    (67349, 1024, 197, 1.5e-6, 0.57, 7.9716),
    (67349, 256, 789, 1.5e-6, 0.88, 1.0034),
    (67349, 256, 789, 1.5e-6, 0.66, 2.9171),
    (67349, 256, 789, 1.5e-6, 0.49, 7.7959),
    (104743, 1024, 306, 9.5e-7, 1.11, 0.9977),
    (104743, 1024, 306, 9.5e-7, 0.76, 2.9487),
    (104743, 1024, 306, 9.5e-7, 0.55, 7.7693),
    (5000, 256, 195, 2e-5, 2.76, 0.9969),
    (5000, 256, 195, 2e-5, 1.26, 3.0028),
    (5000, 256, 195, 2e-5, 0.78, 7.8730),
    (250, 64, 78, 2e-3, 5.52, 0.9919),
    (250, 64, 78, 2e-3, 2.38, 2.9680),
    (250, 64, 78, 2e-3, 1.24, 7.8780),
]


@pytest.mark.parametrize(("n", "batch", "steps", "delta", "noise", "epsilon"), ORACLE)
def test_epsilon_is_the_oracles(n: int, batch: int, steps: int, delta: float, noise: float, epsilon: float) -> None:
    found = epsilon_spent(noise, batch / n, steps, delta)
    assert found == pytest.approx(epsilon, rel=0.01)
    assert found > epsilon * 0.9995, "an upper end"
    if epsilon < 2:
        assert epsilon_spent(noise, batch / n, steps, delta, "rdp") > found


def test_the_oracle_still_says_so() -> None:
    oracle = pytest.importorskip(
        "dp_accounting", reason="dp-accounting pins attrs below 24: no part of the dev install"
    )
    from dp_accounting.pld import PLDAccountant

    for n, batch, steps, delta, noise, epsilon in ORACLE[::4]:
        accountant = PLDAccountant()
        accountant.compose(oracle.PoissonSampledDpEvent(batch / n, oracle.GaussianDpEvent(noise)), steps)
        assert accountant.get_epsilon(delta) == pytest.approx(epsilon, rel=1e-3)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_that_is_planned_spends_what_is_asked_and_hardly_less(epsilon: float) -> None:
    spending = planned_spending(epsilon, 2e-3, 64 / 250, 78)
    assert spending.accountant == "prv"
    assert 0.995 * epsilon < spending.epsilon(78) <= epsilon
    assert spending.epsilon(40) < spending.epsilon(78)
    assert spending.epsilon(0) == 0
    assert spending.noise_multiplier == pytest.approx({1.0: 5.52, 8.0: 1.24}[epsilon], rel=0.01), "published tables"


def test_where_composing_does_not_work_renyi_orders_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> float:
        raise RuntimeError

    monkeypatch.setattr(accounting, "epsilon_spent", broken)
    planned_spending.cache_clear()
    assert planned_spending(3.0, 1e-3, 0.1, 20).accountant == "rdp"
    planned_spending.cache_clear()


def test_delta_is_of_texts_not_of_batches() -> None:
    assert usual_delta(5000) == pytest.approx(5000**-1.1)
    assert usual_delta(1) < 1


def test_without_opacus_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'smd-research\[dp\]'"):
        epsilon_spent(1.0, 0.1, 10, 1e-5)


def test_a_promise_that_no_noise_keeps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tuning.epsilon=1e-06 .* cannot be kept"):
        planned_spending(1e-6, 1e-9, 1.0, 100)


def test_one_full_batch_is_the_gaussian_mechanism() -> None:
    """At rate 1 one step is the analytic Gaussian (Balle and Wang, 2018): sigma 3.731 has epsilon 1, delta 1e-5."""
    assert epsilon_spent(3.731, 1.0, 1, 1e-5) == pytest.approx(1.0, rel=0.01)
    assert math.isclose(Spending(3.731, 1.0, 1e-5, "prv").epsilon(1), 1.0, rel_tol=0.01)
