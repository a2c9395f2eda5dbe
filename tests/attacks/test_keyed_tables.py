"""What the tables alone give away of the substitution, to an attacker who is told nothing, or a few pairs."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from keyed import Keyed, keyed, without_base

from attacks.base import KnownPairs, MappingAttack
from attacks.cryptanalysis.ciphertext import ciphertext, read
from attacks.substitutions.known_plaintext import KnownPlaintext
from attacks.substitutions.table_matching.attack import TableMatching
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.guess import MappingGuess
from smd_research.core.seeds import generator
from smd_research.models import sources
from smd_research.models.bundle import Bundle
from smd_research.models.tables import with_tables


@cache
def model() -> Bundle:
    """With a small vocabulary."""
    whole = sources.random("llama")
    return with_tables(whole, whole.embedding[:700], None)


@cache
def shaken() -> Keyed:
    return keyed(model(), inflate=0.5)


def solved(attack: MappingAttack, one: Keyed, known: KnownPairs | None = None) -> MappingGuess:
    attack.fit(one.public)
    return attack.solve([], np.random.default_rng(0), known)


@pytest.mark.parametrize("table", ["input", "head"])
def test_a_table_gives_the_substitution_away_and_the_prompt_is_read(table: str) -> None:
    attack = TableMatching(method="zscore", table=table)
    found = solved(attack, shaken())
    assert shaken().recovered(found) == 1
    assert found.certified
    ids = (5, 17, 17, 600)
    view = shaken().view(ids, (3,))
    guess = read(view, attack.solve([view], np.random.default_rng(0)))
    assert guess.ids == ids
    assert guess.certified


def test_a_table_of_strangers_gives_nothing() -> None:
    """Negative control."""
    stranger = generator(3, "stranger").standard_normal(tuple(model().embedding.shape))
    one = keyed(model(), table=stranger)
    found = solved(TableMatching(method="zscore", table="input"), one)
    assert one.recovered(found) < 0.01
    assert not found.certified


def test_a_head_that_was_only_permuted_betrays_a_noisy_table() -> None:
    one = keyed(model(), noise=6.0)
    assert one.recovered(solved(TableMatching(method="zscore", table="input", rounds=2), one)) < 0.2
    both = solved(TableMatching(method="zscore", rounds=2), one)
    assert one.recovered(both) == 1
    assert both.facts["matched_head"] == 1


def told(one: Keyed, m: int) -> KnownPairs:
    """The pairs of the ids from 100 on."""
    frequency = np.zeros(model().geometry.vocab)
    frequency[100 : 100 + m] = np.arange(m, 0, -1)
    return KnownPairs.planted(one.truth, frequency, m)


def tied(one: Keyed) -> Keyed:
    """The same without a head of its own."""
    held = one.public.bundle
    return replace(one, public=replace(one.public, bundle=with_tables(held, held.embedding, None)))


def test_pairs_that_were_told_open_the_table() -> None:
    pairs = told(shaken(), 40)
    assert set(pairs.plain.tolist()) == set(range(100, 140))
    found = solved(KnownPlaintext(known=40, rounds=4), shaken(), pairs)
    assert shaken().recovered(found) == 1


def test_what_was_told_is_held_fixed_right_or_wrong() -> None:
    pairs = told(shaken(), 40)
    wrong = KnownPairs(pairs.cipher, np.roll(pairs.plain, 1))
    found = solved(KnownPlaintext(known=40, rounds=4), shaken(), wrong)
    assert (found.mapping[wrong.cipher] == wrong.plain).all()
    assert shaken().recovered(found) == 1 - 40 / model().geometry.vocab, "the tables alone give away the rest"


def test_a_few_pairs_open_nothing_of_a_stranger_s_table() -> None:
    """Negative control."""
    stranger = generator(3, "stranger").standard_normal(tuple(model().embedding.shape))
    one = tied(keyed(model(), table=stranger))
    found = solved(KnownPlaintext(known=40, rounds=4), one, told(one, 40))
    assert one.recovered(found) < (40 + len(model().special_ids)) / model().geometry.vocab + 0.01
    assert not found.certified


@pytest.mark.parametrize("m", [1, 3, 10])
def test_who_is_told_a_few_pairs_of_a_noisy_table_finds_no_less_than_who_is_told_none(m: int) -> None:
    one = tied(keyed(model(), noise=1.0, inflate=0.5))
    blind = one.recovered(solved(TableMatching(rounds=6), one))
    assert blind > 0.95
    assert one.recovered(solved(KnownPlaintext(known=m, rounds=6), one, told(one, m))) >= blind


def test_encoded_text_is_every_prompt_and_what_followed_it() -> None:
    (text,) = ciphertext([shaken().view((5, 6), (7,))])
    assert shaken().truth[text].tolist() == [5, 6, 7]


def test_what_cannot_be_run_is_named() -> None:
    with pytest.raises(ConfigError, match="method"):
        TableMatching(method="magic")
    with pytest.raises(ConfigError, match="table"):
        TableMatching(table="chair")
    with pytest.raises(ConfigError, match="rounds"):
        TableMatching(rounds=0)
    with pytest.raises(ConfigError, match="known"):
        KnownPlaintext(known=-1)
    for attack in (TableMatching(), KnownPlaintext()):
        with pytest.raises(NotApplicableError, match="public model"):
            attack.fit(without_base(shaken()))
