"""What an attack may ask of a defense's public parameters."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from attacks.base import Public
from smd_research.core.errors import NotApplicableError
from smd_research.mechanisms.privacy.gaussian import GaussianParameters
from smd_research.mechanisms.split_inference import SplitParameters


@dataclass(frozen=True)
class SecretSauce:
    """Published by nobody."""


PUBLIC = Public(cast(Any, None), "split", (SplitParameters(2, "fp16"),))


def test_parameters_are_asked_for_by_kind() -> None:
    assert PUBLIC.parameters_of(SplitParameters).layer == 2
    assert PUBLIC.published(SplitParameters) is PUBLIC.parameters[0]


def test_what_was_not_published_is_none_or_a_reason() -> None:
    assert PUBLIC.published(GaussianParameters) is None
    with pytest.raises(NotApplicableError, match="needs public secret sauce, which the defense does not publish"):
        PUBLIC.parameters_of(SecretSauce)
