"""Values for the slots of one document: names that stay the same, numbers that belong to their split."""

import unicodedata
from collections.abc import Callable
from datetime import date, timedelta
from random import Random

from smd_research.core.errors import ConfigError
from smd_research.data.synthetic.grammar import Slot
from smd_research.data.synthetic.partition import CorpusSplit, split_of
from smd_research.data.synthetic.pools import Pools

# The type of the secret that a slot holds; slots that are absent hold ordinary words and are not marked.
SECRET_TYPE = {
    **dict.fromkeys(("name", "first", "last", "other", "otherfirst", "surname"), "name"),
    "clinician": "clinician",
    "dob": "date_of_birth",
    "mrn": "record_number",
    "city": "location",
    "taxid": "tax_number",
    **{
        kind: kind
        for kind in (
            *("date", "phone", "email", "address", "reference", "account", "card", "code", "amount"),
            *("diagnosis", "drug", "dose", "allergy", "result", "merchant", "employer"),
        )
    },
}
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FREQUENCIES = (
    *("once daily", "twice daily", "three times daily", "at night", "in the morning", "as needed", "once a week"),
    *("every 6 hours", "every 8 hours", "on alternate days"),
)
_STRENGTHS = (1, 2, 2.5, 4, 5, 7.5, 8, 10, 12.5, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 125, 150, 200, 250, 300, 400)
_LABS = (
    *(("HbA1c", 38, 110, "mmol/mol"), ("haemoglobin", 68, 175, "g/l"), ("creatinine", 48, 410, "umol/l")),
    *(("potassium", 2, 7, "mmol/l"), ("sodium", 118, 150, "mmol/l"), ("CRP", 1, 320, "mg/l")),
    *(("cholesterol", 2, 10, "mmol/l"), ("glucose", 3, 28, "mmol/l"), ("white cell count", 2, 30, "")),
    *(("platelets", 20, 600, ""), ("TSH", 0, 40, "mU/l"), ("ferritin", 4, 900, "ug/l"), ("PSA", 0, 60, "ug/l")),
    *(("INR", 1, 7, ""), ("troponin", 3, 900, "ng/l"), ("ALT", 8, 600, "U/l"), ("eGFR", 8, 90, "ml/min")),
)
_DOMAINS = ("example.com", "example.org", "example.net", "mail.example", "post.example", "inbox.example")
_SIGNS = ("$", "£", "€")


class Values:
    """Draws slot values for one document.

    Names are combined from first and last names of the document's split; every other secret is drawn again until the
    stable hash places it in that split (``partition.split_of``), so that no secret value occurs in two splits.
    """

    def __init__(self, split: CorpusSplit, pools: Pools, rng: Random) -> None:
        self._split = split
        self._pool = pools.values
        self._rng = rng
        self._bound: dict[str, str] = {}
        self._picked: set[str] = set()
        self._woman = rng.random() < 0.5
        self._person = (self._first("female" if self._woman else "male"), self._pick("last"))
        self._friend = (self._first(), self._pick("last"))

    def draw(self, slot: Slot) -> tuple[str, str | None]:
        """The text of a slot and the type of secret it is (None for ordinary words)."""
        if slot.bound:
            if slot.name not in self._bound:
                self._bound[slot.name] = self._draw_bound(slot.name)
            text = self._bound[slot.name]
        else:
            text = self._draw(slot.name)
        return text, SECRET_TYPE.get(slot.name)

    def _draw_bound(self, name: str) -> str:
        first, last = self._person
        match name:
            case "other":
                return " ".join(self._friend)
            case "otherfirst":
                return self._friend[0]
            case "email":
                return self._email(first, last)
        return self._draw(name)

    def _draw(self, name: str) -> str:
        drawer = _DRAWERS.get(name)
        if drawer is not None:
            return drawer(self)
        if name in self._pool:
            return self._pick(name)
        raise ConfigError(f"grammar slot {{{name}}} is unknown; add it to smd_research/data/synthetic/values.py")

    # Small draws -------------------------------------------------------------------------------------------------

    def _pick(self, kind: str) -> str:
        """A value from a pool, seldom one that the document already has."""
        values = self._pool[kind]
        for _ in range(4):
            value = values[int(self._rng.random() * len(values))]
            if value not in self._picked:
                break
        self._picked.add(value)
        return value

    def _between(self, low: int, high: int) -> int:
        return low + int(self._rng.random() * (high - low + 1))

    def _one_of(self, *options: str) -> str:
        return options[int(self._rng.random() * len(options))]

    def _digits(self, n: int) -> str:
        return f"{int(self._rng.random() * 10**n):0{n}d}"

    def _letters(self, n: int) -> str:
        return "".join(chr(65 + int(self._rng.random() * 26)) for _ in range(n))

    def _own(self, make: Callable[[], str]) -> str:
        """A value that belongs to this split, by rejection."""
        while split_of(value := make()) != self._split:
            pass
        return value

    # People ------------------------------------------------------------------------------------------------------

    def _first(self, gender: str = "") -> str:
        return self._pick(gender or self._one_of("female", "male"))

    def _full_name(self) -> str:
        return f"{self._first()} {self._pick('last')}"

    def _pronoun(self, woman: str, man: str) -> str:
        return woman if self._woman else man

    def _email(self, first: str, last: str) -> str:
        def ascii_only(text: str) -> str:
            plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
            return "".join(letter for letter in plain if letter.isalnum()) or "x"

        def make() -> str:
            local = self._one_of("{f}.{l}", "{f}{l}", "{i}.{l}", "{f}{n}", "{l}{n}").format(
                f=ascii_only(first), l=ascii_only(last), i=ascii_only(first)[0], n=self._digits(2)
            )
            return f"{local}@{self._one_of(*_DOMAINS)}"

        # A given name has only so many addresses: after that a number is appended until one is in the split.
        for _ in range(20):
            if split_of(value := make()) == self._split:
                return value
        return self._own(lambda: make().replace("@", f"{self._digits(3)}@"))

    def _address(self) -> str:
        street, number, city = self._pick("street"), str(self._between(1, 240)), self._pick("city")
        line = self._one_of(f"{number} {street}", f"{number} {street}", f"{street} {number}")
        return self._one_of(f"{line}, {city}", f"{line}, {self._digits(5)} {city}", f"{line}, {city} {self._digits(5)}")

    # Numbers -----------------------------------------------------------------------------------------------------

    def _date(self, first_year: int, last_year: int) -> str:
        """A day of this split (by its ISO form, so that no notation of it occurs in another), in some notation."""
        days = (date(last_year, 12, 31) - date(first_year, 1, 1)).days
        iso = self._own(lambda: (date(first_year, 1, 1) + timedelta(self._between(0, days))).isoformat())
        day = date.fromisoformat(iso)
        month = _MONTHS[day.month - 1]
        return self._one_of(
            f"{day.day} {month} {day.year}",
            f"{day.day} {month[:3]} {day.year}",
            f"{month} {day.day}, {day.year}",
            f"{day:%d/%m/%Y}",
            iso,
        )

    def _amount(self) -> str:
        whole = int(10 ** (1 + 4 * self._rng.random()))
        figure = f"{whole:,}" if self._rng.random() < 0.5 else f"{whole:,}.{self._digits(2)}"
        return f"{self._one_of(*_SIGNS)}{figure}" if self._rng.random() < 0.8 else f"{figure} EUR"

    def _phone(self) -> str:
        return self._one_of(
            f"+44 7{self._digits(3)} {self._digits(6)}",
            f"0{self._between(113, 199)} {self._digits(3)} {self._digits(4)}",
            f"({self._between(201, 989)}) 555-{self._digits(4)}",
            f"+49 1{self._digits(2)} {self._digits(7)}",
            f"+33 6 {self._digits(2)} {self._digits(2)} {self._digits(2)} {self._digits(2)}",
        )

    def _account(self) -> str:
        return self._one_of(
            self._digits(8),
            self._digits(10),
            f"GB{self._digits(2)} {self._letters(4)} {self._digits(4)} {self._digits(4)} {self._digits(4)}",
            f"DE{self._digits(2)} {self._digits(4)} {self._digits(4)} {self._digits(4)}",
            f"{self._digits(2)}-{self._digits(2)}-{self._digits(2)} {self._digits(8)}",
        )

    def _dose(self) -> str:
        strength = f"{_STRENGTHS[int(self._rng.random() * len(_STRENGTHS))]:g}"
        unit = self._one_of("mg", "mg", "mg", "mcg", "units", "ml")
        return f"{strength} {unit} {self._one_of(*_FREQUENCIES)}"

    def _result(self) -> str:
        name, low, high, unit = _LABS[int(self._rng.random() * len(_LABS))]
        value = str(self._between(low, high)) if high > 60 else f"{self._between(low, high - 1)}.{self._digits(1)}"
        return f"{name} {value} {unit}".rstrip()

    def _duration(self) -> str:
        n = self._between(2, 12)
        return self._one_of(f"{n} days", f"{n} weeks", f"{n} months", f"{n} hours", "one week", "a year", f"{n} years")

    def _time(self) -> str:
        return f"{self._between(7, 22):02d}:{5 * self._between(0, 11):02d}"


def _test(values: Values, capital: bool) -> str:
    text = values._pick("test")
    return text[0].upper() + text[1:] if capital else text


_DRAWERS: dict[str, Callable[[Values], str]] = {
    "name": lambda v: " ".join(v._person),
    "first": lambda v: v._person[0],
    "last": lambda v: v._person[1],
    "title": lambda v: v._bound.setdefault("title", v._one_of("Ms", "Mrs", "Ms") if v._woman else "Mr"),
    "other": lambda v: v._full_name(),
    "otherfirst": lambda v: v._first(),
    "surname": lambda v: v._pick("last"),
    "clinician": lambda v: f"{v._one_of('Dr', 'Dr', 'Dr', 'Prof')} {v._pick('last')}",
    "he": lambda v: v._pronoun("she", "he"),
    "He": lambda v: v._pronoun("She", "He"),
    "his": lambda v: v._pronoun("her", "his"),
    "His": lambda v: v._pronoun("Her", "His"),
    "him": lambda v: v._pronoun("her", "him"),
    "email": lambda v: v._email(v._first(), v._pick("last")),
    "address": Values._address,
    "dob": lambda v: v._date(1928, 2010),
    "date": lambda v: v._date(2018, 2027),
    "year": lambda v: str(v._between(1985, 2026)),
    "month": lambda v: v._one_of(*_MONTHS),
    "weekday": lambda v: v._one_of(*_WEEKDAYS),
    "time": Values._time,
    "duration": Values._duration,
    "age": lambda v: str(v._between(18, 95)),
    "small": lambda v: str(v._between(1, 9)),
    "phone": lambda v: v._own(v._phone),
    "mrn": lambda v: v._own(lambda: v._one_of(v._digits(7), f"{v._letters(2)}{v._digits(6)}", v._digits(10))),
    "reference": lambda v: v._own(
        lambda: v._one_of(f"{v._letters(3)}-{v._digits(6)}", f"{v._letters(2)}{v._digits(8)}")
    ),
    "account": lambda v: v._own(v._account),
    "card": lambda v: v._own(lambda: v._one_of(f"ending {v._digits(4)}", " ".join(v._digits(4) for _ in range(4)))),
    "code": lambda v: v._own(lambda: v._one_of(v._digits(6), f"{v._letters(4)}{v._digits(3)}", v._digits(4))),
    "taxid": lambda v: v._own(lambda: f"{v._letters(2)} {v._digits(2)} {v._digits(2)} {v._digits(2)} {v._letters(1)}"),
    "amount": lambda v: v._own(v._amount),
    "rate": lambda v: f"{v._between(0, 14)}.{v._digits(1)}%",
    "score": lambda v: str(v._between(380, 850)),
    "dose": lambda v: v._own(v._dose),
    "result": lambda v: v._own(v._result),
    "bp": lambda v: f"{v._between(92, 188)}/{v._between(50, 108)}",
    "pulse": lambda v: str(v._between(48, 132)),
    "temperature": lambda v: f"{v._between(35, 39)}.{v._digits(1)}",
    "saturation": lambda v: f"{v._between(86, 100)}%",
    "weight": lambda v: f"{v._between(44, 128)} kg",
    "height": lambda v: f"{v._between(148, 198)} cm",
    "test": lambda v: _test(v, capital=False),
    "Test": lambda v: _test(v, capital=True),
    "job2": lambda v: v._pick("role"),
    "merchant": lambda v: v._own(lambda: f"{v._pick('last')} {v._pick('shop')}"),
}
