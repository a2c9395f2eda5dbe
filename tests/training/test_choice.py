"""The choice model learns what tells the right alternative, and stays undecided where nothing does."""

import torch

from smd_research.training.choice import train_choice


def sets(signal: float, count: int = 200, alternatives: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, alternatives, 3, generator=generator)
    right = torch.randint(alternatives, (count,), generator=generator)
    features[torch.arange(count), right, 0] += signal
    return features, right


def test_it_learns_what_tells() -> None:
    features, right = sets(6.0)
    model = train_choice(features, right, 0, epochs=10)
    assert float((model(features).argmax(-1) == right).float().mean()) > 0.9


def test_where_nothing_tells_no_alternative_is_likely() -> None:
    features, right = sets(0.0)
    posterior = torch.softmax(train_choice(features, right, 0, epochs=10)(features), -1)
    assert float(posterior.detach().max(-1).values.mean()) < 0.5


def test_training_is_deterministic_and_leaves_the_generator_alone() -> None:
    features, right = sets(2.0, count=40)
    before = torch.get_rng_state()
    one, two = (train_choice(features, right, 3, epochs=2)(features) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())
