"""Python's reference manual as text: parts that share nothing, and a stream without an end."""

import pytest

from smd_research.core.errors import ConfigError
from smd_research.data.reference import PythonReference, stream
from smd_research.data.synthetic import generate


def test_the_parts_share_no_paragraph_and_are_large() -> None:
    source = PythonReference()
    evaluated, public = ({d.text for d in source.documents(part, 10**6, 0)} for part in ("evaluation", "train"))
    assert not evaluated & public
    assert len(evaluated) > 100
    assert len(public) > 400
    assert [d.text for d in source.documents("train", 20, 1)] != [d.text for d in source.documents("train", 20, 0)]
    with pytest.raises(ConfigError, match="split"):
        source.documents("validation", 1, 0)


def test_the_stream_goes_round_and_keeps_validation_apart() -> None:
    training = [d.text for d in stream("reference", "train", 3000, 0)]
    pages = len(set(training))
    assert training[:100] == training[pages : pages + 100]
    assert training[5:9] == [d.text for d in stream("reference", "train", 4, 0, start=5)]
    assert not set(training) & {d.text for d in stream("reference", "validation", 3000, 0)}
    assert not set(training) & {d.text for d in stream("reference", "evaluation", 3000, 0)}


def test_other_registers_are_the_generators() -> None:
    assert stream("clinical", "train", 3, 0, start=2) == generate("clinical", "train", 3, 0, start=2)
