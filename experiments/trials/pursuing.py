"""Attack what was seen: the one place where the kinds of attack part."""

from attacks.base import Attack
from experiments.trials import attributes, guarantees, mappings, prompts, templates, weights
from experiments.trials.pursuit import Findings, Kind, Pursuit
from smd_research.core.errors import ConfigError, NotApplicableError
from smd_research.core.observable import Observable

KINDS = (prompts.KIND, templates.KIND, mappings.KIND, attributes.KIND, guarantees.KIND, weights.KIND)
"""A new kind of secret is one more module here, beside its base class in :mod:`attacks.base`."""


def kind_of(attack: Attack) -> Kind:
    """The kind of an attack.

    Raises:
        ConfigError: for a class of none of them.
    """
    for kind in KINDS:
        if isinstance(attack, kind.attack):
            return kind
    known = ", ".join(kind.attack.__name__ for kind in KINDS)
    raise ConfigError(f"{type(attack).__name__} is no kind of attack that can be run: derive it from one of {known}")


def admit(attack: Attack, life: str, shows: frozenset[Observable]) -> None:
    """Refuse an attack that finds nothing to look for, before anything runs.

    Args:
        attack: the attack.
        life: name of the life that the defense is to live.
        shows: what the untrusted party sees of it.

    Raises:
        NotApplicableError: naming what is missing.
    """
    missing = sorted(attack.needs - shows)
    if missing:
        raise NotApplicableError(f"needs {', '.join(missing)}, which the defense does not show")
    if reason := kind_of(attack).elsewhere.get(life):
        raise NotApplicableError(reason)


def pursue(attack: Attack, pursuit: Pursuit) -> Findings:
    """Run an admitted attack on what was seen, and score it.

    Raises:
        NotApplicableError: when the attack finds that it cannot be run here.
    """
    return kind_of(attack).pursue(attack, pursuit)
