"""Improve a mapping by what the public model expects, and prove it by how well the text then reads."""

from dataclasses import replace

import numpy as np

from attacks.base import Ids
from attacks.cryptanalysis.annealing import Soft, assigned
from attacks.cryptanalysis.bigrams import Puzzle
from attacks.cryptanalysis.judging import Judge, JudgedReading
from smd_research.core.guess import MappingGuess

_TELLS = 1.0  # nats a token by which a judge must prefer public text to the same text scrambled
_READABLE = 0.5  # nats a token above public text up to which a text counts as read


def refined(found: MappingGuess, puzzle: Puzzle, judge: Judge, capacity: Soft, rounds: int) -> MappingGuess:
    """Read, let every cipher id move to what was expected in its place, and read again; the best reading is kept.

    What stands left of a token is judged by the model, what stands right of it by bigrams.
    """
    best, current, value = found, found.mapping.copy(), -np.inf
    for _ in range(rounds + 1):
        reading = judge.read(current, puzzle.types)
        if reading.likelihood > value:
            value = reading.likelihood
            best = replace(found, mapping=current, score=value)
        choice = assigned(_scores(puzzle, reading, current), capacity, puzzle.fixed)
        if np.array_equal(choice, current[puzzle.types]):
            break
        current = current.copy()
        current[puzzle.types] = choice
    return replace(best, spent=found.spent + judge.spent)


def _scores(puzzle: Puzzle, reading: JudgedReading, mapping: Ids) -> Soft:
    """Scores ``[k, V]`` of every choice, all others as they are."""
    right, left = puzzle.beside(mapping[puzzle.types])
    seen = reading.occurrences[:, None]
    excess = (reading.expected - seen * np.log(puzzle.model.unigram)) * (puzzle.counts[:, None] / np.maximum(seen, 1))
    found: Soft = (puzzle.prior + right + np.where(seen > 0, excess, left)).astype(np.float32)
    return found


def judged(found: MappingGuess, judge: Judge, public: Judge) -> MappingGuess:
    """The guess with the attack's own view of it: by how many nats a token the text reads worse than public text does.

    It is no proof, since much may be wrong in a text that reads well. Nothing is readable where the judge finds public
    text no likelier than the same text under a random mapping.

    Args:
        found: a guess.
        judge: of the encoded text.
        public: the same of public text, whose ids are plain.
    """
    plain = np.arange(public.vocabulary)
    readable = public.likelihood(plain)
    residual = readable - judge.likelihood(found.mapping)
    tells = readable - public.likelihood(np.random.default_rng(0).permutation(plain)) > _TELLS
    return replace(found, readable=tells and residual <= _READABLE, residual=residual)
