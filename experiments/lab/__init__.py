"""The laboratory from Python: ask under a defense, look at what crossed, attack it."""

from experiments.lab.answers import Answer
from experiments.lab.guesses import Guess, Outcome
from experiments.lab.laboratory import Lab
from experiments.lab.tuned import Tuned

__all__ = ["Answer", "Guess", "Lab", "Outcome", "Tuned"]
