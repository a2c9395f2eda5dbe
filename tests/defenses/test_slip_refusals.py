"""What cannot be served is refused in one clear line, before anything is used."""

import pytest
from slip_support import deployed, random_bundle

from smd_research.core.errors import ConfigError, LabError, UnsupportedModelError
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import Slip
from smd_research.defenses.slip.bank import MasksExhaustedError
from smd_research.mechanisms.integers.fixed_point import FixedPointOverflowError
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return random_bundle("llama")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 12}, "bits=12 is unknown: use one of 16, 8, 4, null"),
        ({"field": "round"}, "field=round is unknown: use one of wide, narrow"),
        ({"masking": "xor"}, "use one of uniform, none, reused, float"),
        ({"visibility": "all"}, "use one of strict, boundary"),
        ({"bank": "cloud"}, "use one of memory, folder"),
        ({"bits": None}, "visibility=boundary"),
        ({"field": "narrow"}, "set defense.bits=8"),
        ({"masking": "float"}, "set defense.verify=0"),
        ({"verify": -1}, "count from 0"),
        ({"masks": 0}, "defense.masks=0 is out of range"),
        ({"bank": "folder"}, "go together"),
        ({"bank_folder": "x"}, "go together"),
        ({"split": "qr"}, "split=qr is unknown"),
        ({"rule": "best"}, "rule=best is unknown"),
        ({"rank": -1}, "give 0 or more"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Slip(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 100}, "has 64 singular values; lower rank"),
        ({"targets": "router"}, "targets=router selects nothing"),
        ({"blocks": (9,)}, "0 to 3"),
        ({"rule": "budget"}, "public text"),
        ({"margin_bits": 30}, "cannot be put in fixed point: its activations reach"),
    ],
)
def test_what_a_model_cannot_have_is_refused(llama: Bundle, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        deployed(llama, **options)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_split_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"gpt_oss.*mlp.router") as caught:
        deployed(sources.random("gpt_oss"))
    assert "\n" not in str(caught.value)


def test_an_exhausted_bank_refuses_a_request_before_it_begins(llama: Bundle) -> None:
    with deployed(llama, masks=8) as deployment:
        first = deployment.generate(Prompt("p", "", (7, 8, 9)), 3)
        with pytest.raises(MasksExhaustedError, match="of masks=8 are left") as caught:
            deployment.generate(Prompt("p", "", (7, 8, 9)), 3)
        assert "\n" not in str(caught.value)
        assert first.ids == plain_greedy(llama, (7, 8, 9), 3)
        assert len(deployment.generate(Prompt("p", "", (7,)), 2).ids) == 2, "nothing was lost"


def test_errors_are_the_labs() -> None:
    assert issubclass(MasksExhaustedError, LabError)
    assert issubclass(FixedPointOverflowError, LabError)
