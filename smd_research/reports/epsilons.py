"""What an epsilon is of: numbers of different notions do not compare, and never stand under one unlabelled heading."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Notion:
    """A sort of epsilon.

    Attributes:
        word: that tells it from the others.
        unit: what one epsilon is of, for a heading or an axis.
    """

    word: str
    unit: str


METRIC = Notion("metric", "per token and unit of distance")
MAHALANOBIS = Notion("mahalanobis", "per token and unit of Mahalanobis distance")
SENSITIVE = Notion("sensitive", "per sensitive token and unit of distance")
SET = Notion("set", "per token, within its set")
HEURISTIC = Notion("heuristic", "a setting, nothing is promised")
RELEASED = Notion("released", "for which noise was scaled, not what it gives")
TOKEN = Notion("token", "(epsilon, delta) per token")
WHOLE_TEXT = Notion("whole-text", "(epsilon, delta) per message")
WRITTEN = Notion("written", "per token written, of the whole text")
REPLY = Notion("reply", "(epsilon, delta), A of one reply")
TRAINING = Notion("training", "(epsilon, delta) per text tuned on")
LABEL = Notion("label", "per label")
BIN = Notion("bin", "success above chance, per request")

_OF_WORDS = {"santext_plus": SENSITIVE, "mahalanobis": MAHALANOBIS, "rantext": HEURISTIC}
_NOTIONS = {
    ("dp_rewrite", "epsilon"): WRITTEN,
    ("shaking", "fresh_epsilon"): METRIC,
    ("split_denoise", "epsilon"): METRIC,
    ("smd", "noise_epsilon"): REPLY,
    ("po", "epsilon"): BIN,
}
_OF_TUNING = {"epsilon": TRAINING, "label_epsilon": LABEL}


def notion(defense: str, option: str, options: Mapping[str, object]) -> Notion | None:
    """What an option of a defense is an epsilon of; None where it is none, or of a defense that is not known here.

    Args:
        defense: its name.
        option: name of the option, without its part.
        options: all options of the defense, those left open filled with what was chosen, where that is known.
    """
    if option == "epsilon" and "released" in (options.get("calibration"), options.get("sampler")):
        return RELEASED
    if (defense, option) == ("dp_rewrite", "epsilon") and options.get("clipped") is False:
        return HEURISTIC
    if (defense, option) == ("dp_hidden", "epsilon"):
        if options.get("mechanism") == "dchi":
            return METRIC
        unit = options.get("unit") or ("token" if not options.get("layer") else "sequence")
        return TOKEN if unit == "token" else WHOLE_TEXT
    if (defense, option) == ("dp_text", "epsilon"):
        if options.get("mechanism") == "custext":
            return HEURISTIC if options.get("mapping") == "own" else SET
        return _OF_WORDS.get(str(options.get("mechanism")), METRIC)
    return _NOTIONS.get((defense, option))


def named(defense: str, option: str, options: Mapping[str, object]) -> str:
    """The name of an option in one word, with the notion where it is an epsilon: ``epsilon[metric]``."""
    found = notion(defense, option, options)
    return f"{option}[{found.word}]" if found else option


def notion_of_label(labels: Mapping[str, object], name: str) -> Notion | None:
    """What a label is an epsilon of.

    Args:
        labels: of a point: ``defense``, and its options as ``defense.epsilon``.
        name: of one of them.
    """
    part, _, option = name.rpartition(".")
    if part == "tuning" and labels.get(name) is not None:
        return _OF_TUNING.get(option)
    if part != "defense" or labels.get(name) is None:
        return None
    options = {key.rpartition(".")[2]: value for key, value in labels.items() if key.startswith("defense.")}
    return notion(str(labels.get("defense")), option, options)


def the_one(found: Iterable[Notion | None]) -> Notion | None:
    """The notion that all of them are of, as far as they are epsilons; None where there are several, or none."""
    notions = set(found) - {None}
    return notions.pop() if len(notions) == 1 else None
