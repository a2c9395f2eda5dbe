"""The search changes texts, and what was written, as long as a token tells the texts apart better; and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.rewriting.audit import audit_rewriter, hardest_audit
from smd_research.mechanisms.rewriting.base import Rewriter
from smd_research.mechanisms.rewriting.clipped_softmax import ClippedSoftmax, LogitBounds
from smd_research.mechanisms.rewriting.worst_pair import Ascent, WorstPair, pair_at

KEY = (0, 9, 4, 11, 7, 2, 14, 5, 12, 8)
VOCAB, TOLD, BARRED = 32, 3, (0, 31)
PUBLIC = torch.tensor([(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (0, 14, 13, 12, 11, 10, 9, 8, 7, 6)])


@dataclass(frozen=True, eq=False)
class Lock(Rewriter):
    """Token ``TOLD`` is the less likely the more tokens of a text stand where they stand in a key.

    Attributes:
        turned: whether each token of the key that was written before makes that so much stronger.
        fatal: whether one token of the key rules ``TOLD`` out.
        key: that is compared.
    """

    turned: bool = False
    fatal: bool = False
    key: tuple[int, ...] = KEY

    @property
    def vocab(self) -> int:
        return VOCAB

    def logits(self, texts: Tensor, sent: Sequence[int]) -> Tensor:
        found = torch.zeros(len(texts), len(sent) - 1, VOCAB)
        hits = (texts[:, 1:] == torch.tensor(self.key[1:])).sum(1).double()
        for row, place in enumerate(self.drawn(sent)):
            written = sum(a == b for a, b in zip(sent[1:place], self.key[1:place], strict=True))
            found[:, row, TOLD] = -hits * (torch.inf if self.fatal else 1 + written if self.turned else 1)
        return found.nan_to_num(nan=0.0, neginf=-torch.inf)

    def drawn(self, sent: Sequence[int]) -> list[int]:
        return list(range(1, len(sent)))

    def rewrite(self, ids: Sequence[int], rng: np.random.Generator) -> list[int]:
        raise NotImplementedError

    def guarantee(self) -> Guarantee | None:
        return None


def lock(clipped: bool = False, turned: bool = False, fatal: bool = False) -> Lock:
    softmax = ClippedSoftmax(LogitBounds(-2.0, 0.0), 5.0, clipped, torch.tensor(BARRED))
    return Lock(softmax, turned, fatal)


def climbed(rewriter: Rewriter, start: WorstPair) -> WorstPair:
    drawable = np.setdiff1d(np.arange(VOCAB), BARRED)
    return Ascent(rewriter, range(1, len(KEY)), drawable).climb(start, np.random.default_rng(0))


def test_what_no_list_of_texts_has_the_search_finds() -> None:
    """Texts of one token have one of the key at most, the public ones no more, and a claim breaks at four."""
    made = lock()
    monotonous = torch.tensor([(0, *[token] * 9) for token in range(1, 31)])
    listed = audit_rewriter(made, torch.cat([PUBLIC, monotonous]), PUBLIC[0].tolist())
    assert listed.holds
    assert listed.measured < 2.5
    found = hardest_audit(made, PUBLIC, {0}, np.random.default_rng(0))
    assert not found.holds
    assert 5 < found.measured <= 9 / 0.8 + 1e-9, "no more than the whole key"


def test_a_clip_keeps_its_promise_under_the_same_search() -> None:
    found = hardest_audit(lock(clipped=True), PUBLIC, {0}, np.random.default_rng(0))
    assert found.holds
    assert 2 < found.measured <= 5


def test_what_was_written_before_is_searched_where_laws_see_it() -> None:
    start = pair_at(lock(), PUBLIC, (0, *[1] * 9), 9)
    straight, turned = climbed(lock(), start), climbed(lock(turned=True), start)
    assert sum(a == b for a, b in zip(turned.sent, KEY, strict=True)) > 4
    assert turned.ratio > 3 * straight.ratio
    assert turned.sent[0] == 0
    assert not {*turned.sent[1:9]} & {*BARRED}, "it could not have been written"


def test_a_barred_token_that_stands_in_a_text_comes_nowhere_else() -> None:
    made = replace(lock(), key=(0, *[31] * 9))
    texts = torch.stack([PUBLIC[0], torch.tensor((0, 31, *range(1, 9)))])
    found = climbed(made, pair_at(made, texts, PUBLIC[0].tolist(), 9))
    assert (found.texts == 31).sum(1).tolist() == [0, 1]
    assert 31 not in found.sent


def test_what_passes_stays_and_what_is_barred_never_comes() -> None:
    found = climbed(lock(), pair_at(lock(), PUBLIC, PUBLIC[0].tolist(), 1))
    assert found.texts[:, 0].tolist() == [0, 0]
    assert not {*found.texts[:, 1:].flatten().tolist()} & {*BARRED}
    assert found.token == TOLD


@pytest.mark.parametrize("clipped", [True, False])
def test_the_ratio_is_that_of_the_laws(clipped: bool) -> None:
    made = lock(clipped, turned=True)
    found = climbed(made, pair_at(made, PUBLIC, PUBLIC[0].tolist(), 5))
    laws = made.log_laws(found.texts, found.sent)[:, found.place - 1, found.token]
    assert float(laws[0] - laws[1]) == pytest.approx(found.ratio)
    assert audit_rewriter(made, found.texts, found.sent).measured >= found.ratio - 1e-9


def test_a_token_that_is_ruled_out_needs_no_search() -> None:
    made = lock(fatal=True)
    found = hardest_audit(made, PUBLIC, {0}, np.random.default_rng(0))
    assert (found.measured, found.holds, found.differing) == (float("inf"), False, 1.0)
    texts = torch.tensor([(0, *[1] * 9), KEY])
    pair = pair_at(made, texts, PUBLIC[0].tolist(), 2)
    assert (pair.ratio, pair.token) == (float("inf"), TOLD)
    assert pair.texts[1].tolist() == list(KEY)
