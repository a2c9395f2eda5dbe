import base64
import struct

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from outputs_alike import differences, numbers_alike, pictures_alike, texts_alike


def picture(width: int, height: int) -> str:
    return base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)).decode()


def book(*texts: str, tags: tuple[str, ...] = ()) -> object:
    outputs = [new_output("stream", name="stdout", text=text) for text in texts]
    return new_notebook(cells=[new_code_cell("x", id="here", outputs=outputs, metadata={"tags": [*tags]})])


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.234", "1.236"), ("0.12", "0.13"), ("3e-08", "8.1e-07"), ("2.5e+03", "2.51e+03"), ("7", "7"), ("1.0", "1")],
)
def test_decimals_agree_to_three_digits(one: str, other: str) -> None:
    assert numbers_alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("1.234", "1.245"), ("0.12", "0.14"), ("3e-05", "8e-05"), ("7", "8"), ("1000", "1001")]
)
def test_other_numbers_do_not(one: str, other: str) -> None:
    assert not numbers_alike(one, other)


def test_words_and_signs_are_equal() -> None:
    assert texts_alike("Ms. Lee, 13 tokens, 0.1234", "Ms. Lee, 13 tokens, 0.1235")
    assert not texts_alike("Ms. Lee, 13 tokens", "Ms. Low, 13 tokens")
    assert not texts_alike("0.5", "-0.5")
    assert texts_alike("<style>a { b: 1 }</style>text", "<style>c\n{ d: 2 }</style>text")


def test_pictures_are_about_as_large() -> None:
    assert pictures_alike(picture(600, 400), picture(610, 395))
    assert not pictures_alike(picture(600, 400), picture(600, 300))


def test_what_differs_is_named() -> None:
    assert not [*differences(book("a 1.234"), book("a 1.2341"))]
    assert [*differences(book("a"), book("b"))] == ["here: stdout: 'a' became 'b'"]
    assert [*differences(book("a"), book())] == ["here: ['stdout'] became []"]
    assert [*differences(book("a"), new_notebook())] == ["here: there on one side alone"]
    assert not [*differences(book("1 s", tags=("timing",)), book("2 s"))]
