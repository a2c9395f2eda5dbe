"""The laboratory from Python: ask under a defense, look at what crossed, attack it."""

from experiments.lab.answers import LabAnswer
from experiments.lab.guesses import LabGuess, LabOutcome
from experiments.lab.laboratory import Lab
from experiments.lab.tuned import LabTuning

__all__ = ["Lab", "LabAnswer", "LabGuess", "LabOutcome", "LabTuning"]
