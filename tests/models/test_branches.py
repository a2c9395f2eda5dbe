"""Branches of one prefix have the logits of their whole texts."""

import pytest
import torch

from smd_research.models import sources
from smd_research.models.branches import Branches
from smd_research.models.families import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branchs_logits_are_those_of_its_whole_text(family: str) -> None:
    bundle = sources.random(family)
    draws = torch.randint(5, bundle.geometry.vocab, (3, 20), generator=torch.Generator().manual_seed(1))
    draws[:, :14] = draws[0, :14]
    branches = Branches(bundle, draws[0, :14].tolist(), 3)
    for end in (15, 19, 20):
        branches.feed(draws[:, branches.length : end])
        expected = bundle.model(input_ids=draws[:, :end]).logits[:, -1]
        torch.testing.assert_close(branches.logits, expected, atol=1e-4, rtol=1e-4)


def test_a_fork_goes_its_own_way() -> None:
    bundle = sources.random("llama")
    branches = Branches(bundle, [3, 4, 5], 2)
    branches.feed(torch.tensor([[6], [7]]))
    fork = branches.fork(torch.tensor([1, 1, 0]))
    fork.feed(torch.tensor([[8], [9], [9]]))
    assert (branches.length, fork.length) == (4, 5)
    for row, ids in enumerate([[3, 4, 5, 7, 8], [3, 4, 5, 7, 9], [3, 4, 5, 6, 9]]):
        expected = bundle.model(input_ids=torch.tensor([ids])).logits[0, -1]
        torch.testing.assert_close(fork.logits[row], expected, atol=1e-4, rtol=1e-4)
    branches.feed(torch.tensor([[8], [8]]))
    expected = bundle.model(input_ids=torch.tensor([[3, 4, 5, 6, 8]])).logits[0, -1]
    torch.testing.assert_close(branches.logits[0], expected, atol=1e-4, rtol=1e-4)
