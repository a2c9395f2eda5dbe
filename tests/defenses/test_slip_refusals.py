"""What cannot be served is refused in one clear line, before anything is used."""

from collections.abc import Callable

import pytest
import torch
from slip_support import deployed, random_bundle

from smd_research.boundary.messages import ExposedLayer
from smd_research.core.errors import ConfigError, LabError, ProtocolError, UnsupportedModelError
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import Slip
from smd_research.defenses.slip.bank import MasksExhaustedError
from smd_research.defenses.slip.device import ExposedStore
from smd_research.defenses.slip.products import Product
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
        ({"verify": -1}, "defense.verify=-1 is out of range"),
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


def _rows(rows: int, width: int = 3, product: int = 0, scales: int | None = None) -> ExposedLayer:
    count = rows if scales is None else scales
    return ExposedLayer(torch.ones(rows, width, dtype=torch.int16), torch.ones(count), product)


@pytest.mark.parametrize(
    ("offer", "message"),
    [
        (lambda store: store.take(_rows(2, product=7)), "no product 7"),
        (lambda store: store.take(_rows(2, width=4)), "lacks 3 rows of 3, not 2 of 4"),
        (lambda store: store.take(_rows(4)), "lacks 3 rows of 3, not 4 of 3"),
        (lambda store: store.take(_rows(0)), "not 0 of 3"),
        (lambda store: store.take(_rows(2, scales=1)), "with 1 scales"),
        (lambda store: store.pop(0), "never arrived"),
        (lambda store: store.pop(7), "never arrived"),
    ],
)
def test_a_device_keeps_only_rows_that_the_model_has(offer: Callable[[ExposedStore], object], message: str) -> None:
    store = ExposedStore([Product(0, ("a", "b"), (2, 3), 3)])
    store.take(_rows(2))
    before = store.nbytes
    with pytest.raises(ProtocolError, match=message):
        offer(store)
    assert store.nbytes == before
    store.take(_rows(3))
    assert store.pop(0)[0].shape == (5, 3)
    assert store.nbytes == 0
