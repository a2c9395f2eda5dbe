"""The audit lets an honest decode pass and names what is not one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_research.core.errors import ProtocolError
from smd_research.mechanisms.attention.query_audit import NormBound, QueryAudit, SpreadBound

LAYERS, HEADS, DIM = 3, 4, 8


def honest(rows: int = 400, seed: int = 0) -> torch.Tensor:
    """Queries ``[layers, heads, rows, dim]`` that lie mostly in two directions."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(LAYERS, HEADS, rows, DIM, generator=g) * 0.05
    x[..., :2] += 3 * torch.randn(LAYERS, HEADS, rows, 2, generator=g)
    return x


def rows_of(queries: torch.Tensor, layer: int) -> torch.Tensor:
    """As they cross: ``[streams, heads, dim]``."""
    return queries[layer].transpose(0, 1)


def decode(audit: QueryAudit, position: int, steps: int) -> None:
    for step in range(steps):
        for layer in range(LAYERS):
            audit.check(torch.ones(1, HEADS, DIM), layer, position + step)


@settings(max_examples=30, deadline=None)
@given(position=st.integers(1, 50), steps=st.integers(1, 8))
def test_an_honest_schedule_passes_and_no_query_after_it(position: int, steps: int) -> None:
    audit = QueryAudit(range(LAYERS))
    audit.begin(position, steps)
    decode(audit, position, steps)
    with pytest.raises(ProtocolError, match="more queries"):
        audit.check(torch.ones(1, HEADS, DIM), 0, position + steps)
    audit.begin(position, 1)
    decode(audit, position, 1)


@pytest.mark.parametrize(("layer", "position"), [(0, 10), (2, 10), (1, 11), (1, 9)])
def test_any_other_order_is_refused_in_one_line(layer: int, position: int) -> None:
    audit = QueryAudit(range(LAYERS))
    audit.begin(10, 4)
    audit.check(torch.ones(1, HEADS, DIM), 0, 10)
    with pytest.raises(ProtocolError, match="layer 1 at position 10 is due") as caught:
        audit.check(torch.ones(1, HEADS, DIM), layer, position)
    assert "\n" not in str(caught.value)


def test_nothing_is_answered_before_a_request_begins() -> None:
    with pytest.raises(ProtocolError, match="more queries"):
        QueryAudit(range(LAYERS)).check(torch.ones(1, HEADS, DIM), 0, 0)


def test_layers_that_run_in_the_vault_are_not_asked() -> None:
    audit = QueryAudit(range(1, LAYERS))
    audit.begin(5, 1)
    with pytest.raises(ProtocolError, match="layer 1 at position 5 is due"):
        audit.check(torch.ones(1, HEADS, DIM), 0, 5)


def test_bounds_pass_what_they_were_made_of_and_what_is_like_it() -> None:
    seen, more = honest(), honest(seed=1)
    for bound in (NormBound.of(seen, 1.0), SpreadBound.of(seen, 1.0)):
        for layer in range(LAYERS):
            assert bound.excess(rows_of(seen, layer), layer) <= 1 + 1e-5
            assert bound.excess(rows_of(more, layer), layer) <= 1.5


def test_a_long_query_breaks_the_norm_and_a_strange_one_the_spread() -> None:
    norm, spread = NormBound.of(honest(), 1.1), SpreadBound.of(honest(), 1.1)
    strange = torch.zeros(1, HEADS, DIM)
    strange[..., 5] = 3.0
    assert norm.excess(strange, 0) <= 1 < spread.excess(strange, 0)
    assert norm.excess(100 * rows_of(honest(), 0), 0) > 50
    audit = QueryAudit(range(LAYERS), [norm, spread])
    audit.begin(3, 2)
    with pytest.raises(ProtocolError, match=r"direction of a query of layer 0"):
        audit.check(strange, 0, 3)


def test_a_query_that_is_no_number_is_refused() -> None:
    audit = QueryAudit(range(LAYERS), [NormBound.of(honest(), 1.1)])
    audit.begin(3, 2)
    with pytest.raises(ProtocolError, match="norm"):
        audit.check(torch.full((1, HEADS, DIM), float("nan")), 0, 3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0.1, 1e4))
def test_within_keeps_the_bound_and_leaves_honest_queries(seed: int, size: float) -> None:
    g = torch.Generator().manual_seed(seed)
    q = size * torch.randn(2, HEADS, DIM, generator=g)
    for bound in (NormBound.of(honest(), 1.0), SpreadBound.of(honest(), 1.0)):
        assert bound.excess(bound.within(q, 1), 1) <= 1 + 1e-3
        inside = rows_of(honest(), 1)[:3]
        assert torch.allclose(bound.within(inside, 1), inside, atol=1e-4)
