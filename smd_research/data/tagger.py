"""Finds secrets by pattern and checksum: what a vault can do without marks and without a model.

Rules are tried in order; a later one never cuts into what an earlier one found. Numbers written without a shape of
their own are told apart by checksum (Luhn for cards, ISO 7064 mod 97 for IBANs) and by the word before them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from smd_research.data.prompts import Prompt, Span, TokenSpan, token_spans

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
_DATE = rf"\d{{1,2}} {_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}, \d{{4}}|\d{{1,2}}/\d{{1,2}}/\d{{4}}|\d{{4}}-\d{{2}}-\d{{2}}"
_WORD = r"[^\W\d_][\w'’-]*"
_NAME = r"[A-ZÀ-Þ][\w'’-]+"
_LASTS = rf"(?:(?:van|von|de|der|den|del|da|di|du|la|le|zu) )*{_NAME}"
_CITY = rf"(?:\d{{5}} )?{_NAME}(?:[ -]{_NAME}){{0,2}}(?: \d{{5}})?"
_GREETING = r"(?:[Dd]ear|[Hh]i|[Hh]ello|[Pp]atient:?|[Nn]ame:|[Cc]ustomer:?|[Cc]lient:?)"
_UNIT = r"(?:mmol/mol|umol/l|mmol/l|ug/l|ng/l|mU/l|ml/min|mg/l|U/l|g/l)"
_LAB = (
    r"(?:HbA1c|haemoglobin|creatinine|potassium|sodium|CRP|cholesterol|glucose|white cell count|platelets|TSH|ferritin"
    r"|PSA|INR|troponin|ALT|eGFR)"
)
_OFTEN = (
    r"(?: (?:(?:once|twice|three times|four times) (?:daily|a day|weekly|a week)|at night|in the morning|as needed"
    r"|every \d+ hours|on alternate days|daily))?"
)


@dataclass(frozen=True)
class Rule:
    """A pattern for one type of secret; ``check`` has the last word, group 1 (where there is one) is the secret."""

    type: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None

    def spans(self, text: str) -> Iterator[Span]:
        """Finds the spans that the rule marks, in order."""
        for match in self.pattern.finditer(text):
            start, end = match.span(1 if match.re.groups else 0)
            if self.check is None or self.check(text[start:end]):
                yield Span(start, end, self.type)


def luhn(text: str) -> bool:
    """Whether the digits of a text have a valid Luhn checksum, as payment cards do."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = [digit if i % 2 == 0 else sum(divmod(2 * digit, 10)) for i, digit in enumerate(reversed(digits))]
    return len(digits) > 1 and sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether a text is an IBAN: its length is one, and ISO 7064 mod 97 leaves 1."""
    plain = "".join(text.split()).upper()
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", plain):
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def _rule(type_: str, pattern: str, check: Callable[[str], bool] | None = None) -> Rule:
    return Rule(type_, re.compile(pattern), check)


_AFTER = r"(?i:{words})(?i:(?: number| no\.?| is| to| of|:|,|\(| -| #| the| ref\.?)*) ?"
RULES: tuple[Rule, ...] = (
    _rule("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    _rule("account", r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b", iban),
    _rule("account", r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){3,7}(?: [A-Z0-9]{1,3})?\b"),
    _rule("account", r"\b\d{2}-\d{2}-\d{2} \d{8}\b"),
    _rule("card", r"\b\d{4}(?:[ -]\d{4}){3}\b"),
    _rule("card", r"\b\d{13,19}\b", luhn),
    _rule("card", r"\bending (?:in )?\d{4}\b"),
    _rule("tax_number", r"\b[A-Z]{2} \d{2} \d{2} \d{2} [A-Z]\b"),
    _rule("date_of_birth", _AFTER.format(words=r"\b(?:born(?: on)?|birth|dob|d\.o\.b\.)") + rf"({_DATE})"),
    _rule("date", rf"\b(?:{_DATE})\b"),
    _rule("phone", r"\+\d{1,3}(?:[ -]?\(?\d{1,7}\)?){2,6}"),
    _rule("phone", r"\(\d{3}\) ?\d{3}-\d{4}|\b0\d{2,4} \d{3} \d{3,4}\b"),
    _rule("amount", r"[$£€]\d[\d,]*(?:\.\d{2})?|\b\d[\d,]*(?:\.\d{2})? (?:EUR|USD|GBP)\b"),
    _rule("reference", r"\b[A-Z]{3}-\d{6}\b|\b[A-Z]{2}\d{8}\b"),
    _rule("record_number", r"\b[A-Z]{2}\d{6}\b"),
    _rule("code", r"\b[A-Z]{4}\d{3}\b"),
    _rule("code", _AFTER.format(words=r"\b(?:code|pin|password|passcode|combination)") + r"(\d{4,6})\b"),
    _rule("account", _AFTER.format(words=r"\b(?:account|acct|a/c)") + r"(\d{8,10})\b"),
    _rule("record_number", r"\b\d{7}\b|\b\d{10}\b"),
    _rule("account", r"\b\d{8}\b"),
    _rule("code", r"\b\d{6}\b"),
    _rule("result", rf"\b{_LAB} \d+(?:\.\d+)?(?: {_UNIT})?"),
    _rule("dose", rf"\b\d+(?:\.\d+)? (?:mg|mcg|units|ml|g)\b{_OFTEN}"),
    _rule("clinician", rf"\b(?:Dr|Prof)\.? {_LASTS}(?: {_LASTS})?"),
    _rule("address", rf"\b\d{{1,3}} {_NAME}(?: {_WORD}){{0,3}}, {_CITY}"),
    _rule("address", rf"\b{_NAME}(?: {_NAME}){{0,2}} \d{{1,3}}, {_CITY}"),
    _rule("name", rf"\b(?:Mr|Mrs|Ms|Miss)\.? ({_LASTS}(?: {_LASTS})?)"),
    _rule("name", rf"(?m)(?:^|[ (\"]){_GREETING} ({_NAME}(?: {_LASTS})?)"),
    _rule("name", rf"\b({_NAME} {_LASTS})\b"),
)  # fmt: skip


def tag(text: str, rules: Sequence[Rule] = RULES) -> tuple[Span, ...]:
    """The secrets that rules find in a text, in order, not overlapping."""
    found: list[Span] = []
    for rule in rules:
        for span in rule.spans(text):
            if all(span.end <= other.start or span.start >= other.end for other in found):
                found.append(span)
    return tuple(sorted(found))


def tag_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> tuple[TokenSpan, ...]:
    """The secrets that rules find in a prompt, in tokens.

    Where a cut made the prompt's last tokens differ from those of its text read by itself, these tokens count as one:
    a secret that touches any of them takes all.
    """
    encoded = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
    begin = int(bool(prompt.ids) and prompt.ids[0] == tokenizer.bos_token_id)
    same = 0
    while same < min(len(ids), len(prompt.ids) - begin) and ids[same] == prompt.ids[begin + same]:
        same += 1
    last = offsets[same - 1][1] if same else 0
    rest = len(prompt.ids) - begin - same
    placed = [(0, 0)] * begin + offsets[:same] + [(last, len(prompt.text))] * rest
    return _apart(token_spans(tag(prompt.text), placed))


def _apart(spans: Sequence[TokenSpan]) -> tuple[TokenSpan, ...]:
    """Spans in order; those that share a token become one."""
    joined: list[TokenSpan] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if joined and span.start < joined[-1].end:
            joined[-1] = TokenSpan(joined[-1].start, max(span.end, joined[-1].end), joined[-1].type)
        else:
            joined.append(span)
    return tuple(joined)
