"""Pools of names, places and terms: Faker's word lists in several languages, and the lab's own vocabulary."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from faker import Faker

from smd_research.data.synthetic.partition import CorpusSplit, values_of_split

# Latin-script locales, English twice: the text is English, the people are not all.
_LOCALES = ("en_US", "en_GB", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE")
# Faker keeps these cities in a set, whose order differs from process to process: a seed does not fix the draw.
_UNORDERED_CITIES = ("it_IT",)
_FAKER_SEED = 20
_DRAWS = {"female": 400, "male": 400, "last": 800, "street": 400, "city": 300, "employer": 150}


@dataclass(frozen=True)
class Pools:
    """The values of one split, by kind."""

    values: dict[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def _faker_values() -> dict[str, tuple[str, ...]]:
    """Raw draws of every locale, seeded: the same for a given version of Faker."""
    drawn: dict[str, list[str]] = {kind: [] for kind in _DRAWS}
    for number, locale in enumerate(_LOCALES):
        fake = Faker(locale)
        fake.seed_instance(_FAKER_SEED + number)
        source: dict[str, Callable[[], str]] = {
            "female": fake.first_name_female,
            "male": fake.first_name_male,
            "last": fake.last_name,
            "street": fake.street_name,
            "city": fake.city,
            "employer": fake.company,
        }
        if locale in _UNORDERED_CITIES:
            del source["city"]
        for kind, draw in source.items():
            drawn[kind] += [" ".join(draw().split()).rstrip(".") for _ in range(_DRAWS[kind])]
    return {kind: tuple(values) for kind, values in drawn.items()}


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, tuple[str, ...]]:
    """The lab's own word lists, by kind, before any split."""
    found: dict[str, tuple[str, ...]] = {}
    text = (files(__package__) / "vocabulary.txt").read_text(encoding="utf-8")
    for block in text.split("\n== ")[1:]:
        kind, entries = block.split("\n", 1)
        found[kind.strip()] = tuple(entry.strip() for entry in entries.split(";") if entry.strip())
    return found


SECRET_KINDS = ("diagnosis", "drug", "allergy")


@lru_cache(maxsize=3)
def pools(split: CorpusSplit) -> Pools:
    """Every kind of value that ``split`` may use; secret kinds are disjoint between splits."""
    values = {kind: values_of_split(found, split) for kind, found in _faker_values().items()}
    for kind, entries in vocabulary().items():
        values[kind] = values_of_split(entries, split) if kind in SECRET_KINDS else entries
    return Pools(values)
