"""What a classifier looks at: numbers that describe each prompt of a line-up beside the others."""

import re
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from attacks.prompts.pick_stream.evidence import Evidence
from attacks.prompts.pick_stream.retokenisation import canonical
from smd_research.models.bundle import Bundle

Decode = Callable[[list[int]], str]
_DATE = re.compile(r"\b(\d{1,2})[/.](\d{1,2})[/.](\d{2}|\d{4})\b")
_IMPOSSIBLE = 30.0  # below the best, in nats: as good as never


def features(evidence: Evidence, bundle: Bundle) -> Tensor:
    """Features ``[streams, features]``, each with its mean over the line-up taken off.

    Likelihoods of the secrets and of what follows them under two models, the least likely token, ranks, the sampler's
    law, the distance from the middle of the line-up, whether the ids are the text's own, length, case, digits,
    validity, agreement between spans, and words of a secret that stand elsewhere in the text.
    """
    lineup, e = evidence.lineup, evidence
    differs = lineup.differs
    served, domain = e.secrets(e.served), e.secrets(e.domain)
    law = e.law.float()
    numbers = [
        served,
        domain,
        e.served[:, differs].amin(1) if bool(differs.any()) else served,
        e.domain[:, differs].amin(1) if bool(differs.any()) else served,
        e.secrets(e.ranks),
        e.rest(e.served),
        e.rest(e.domain),
        (law - law.max()).clamp_min(-_IMPOSSIBLE),
        (served - (served.max() + served.min()) / 2).abs(),
        canonical(lineup, bundle.tokenizer),
    ]
    written = torch.tensor([_written(row, lineup.spans, bundle.decode) for row in lineup.ids.tolist()])
    found = torch.cat([torch.stack([number.float() for number in numbers], 1), written], 1)
    return found - found.mean(0)


def _written(ids: list[int], spans: Sequence[tuple[int, int]], decode: Decode) -> list[float]:
    """What can be seen in the text: ``[length, digits, capitals, valid, agreeing spans, words elsewhere]``."""
    secrets = [decode(ids[start:end]).strip() for start, end in spans]
    inside = {position for start, end in spans for position in range(start, end)}
    elsewhere = decode([token for position, token in enumerate(ids) if position not in inside])
    text = "\n".join(secrets)
    words = set(re.findall(r"\w{3,}", text))
    return [
        float(len(text)),
        float(sum(character.isdigit() for character in text)),
        float(sum(character.isupper() for character in text)),
        float(all(map(valid, secrets))),
        float(sum(one == two for one, two in combinations(secrets, 2))),
        float(sum(word in elsewhere for word in words)),
    ]


def valid(text: str) -> bool:
    """False where a number breaks its own rule: a day or month that does not exist, a card that fails its checksum."""
    for day, month, _ in _DATE.findall(text):
        if not (1 <= int(day) <= 31 and 1 <= int(month) <= 31 and min(int(day), int(month)) <= 12):
            return False
    digits = [int(character) for character in text if character.isdigit()]
    return len(digits) != 16 or luhn(digits)


def luhn(digits: Sequence[int]) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1)."""
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
