"""Keys on disk: they come back as they went, and whatever is wrong with a file is said in one clear line."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from smd_research.core.errors import ConfigError, LabError
from smd_research.mechanisms.shaking import Key
from smd_research.models import Bundle, sources

SECRET = bytes(range(16))


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def key(llama: Bundle) -> Key:
    vertical = (("inflate", 0.5), ("tilt", 1.0))
    return Key.draw(llama, vertical=vertical, homophones=2, frequent=(5, 9), labels=True, secret=SECRET)


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Key.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET.hex() not in text
    return text


def test_a_key_comes_back_as_it_went_and_only_its_owner_may_read_it(key: Key, llama: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "one.json"
    key.save(path)
    key.save(path)
    loaded = Key.load(path)
    assert loaded == key
    assert loaded.name == key.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]
    loaded.check(llama)


def test_a_key_hides_its_secret_and_names_all_else(key: Key) -> None:
    assert "secret" not in key.public
    assert {"version", "model", "tokenizer", "fraction", "homophones", "vertical", "labels"} <= set(key.public)
    for shown in (repr(key), str(key), key.name, json.dumps(key.public)):
        assert SECRET.hex() not in shown
        assert repr(SECRET) not in shown
    assert key.name != replace(key, secret=bytes(16)).name
    assert key.name != replace(key, fraction=0.5).name


def test_keys_of_the_system_differ(llama: Bundle) -> None:
    assert Key.draw(llama).secret != Key.draw(llama).secret


def test_a_truncated_or_altered_file_is_named_as_such(key: Key, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    key.save(path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert "truncated" in _refusal(path)
    path.write_text("")
    assert "truncated" in _refusal(path)
    content = json.loads(text)
    changed = {"secret": "0" * 32, "fraction": 0.5, "vertical": [["tilt", 1.0]], "check": "0" * 32, "model": "other"}
    for name, value in changed.items():
        path.write_text(json.dumps({**content, name: value}))
        assert "was altered" in _refusal(path), name
    for name in set(content) - {"format", "version"}:
        path.write_text(json.dumps({other: value for other, value in content.items() if other != name}))
        assert "was altered" in _refusal(path), name
    for value in (None, 3, "xyz"):
        path.write_text(json.dumps({**content, "secret": value}))
        assert "was altered" in _refusal(path), value
    path.write_text(json.dumps({**content, "version": 2}))
    assert "version that is unknown" in _refusal(path)
    for foreign in ({"a": 1}, [1, 2], {**content, "format": "x"}):
        path.write_text(json.dumps(foreign))
        assert "no shaking key" in _refusal(path)
    assert "cannot be read: No such file" in _refusal(tmp_path / "missing.json")
    path.write_bytes(b"\xff\xfe\x00")
    assert "truncated or no key" in _refusal(path)


def test_a_key_that_cannot_be_written_says_so(key: Key, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        key.save(tmp_path / "file" / "key.json")


def test_a_key_of_another_model_or_tokenizer_is_refused(key: Key, llama: Bundle) -> None:
    with pytest.raises(ConfigError, match="another model") as caught:
        key.check(sources.random("llama", seed=1))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="another model"):
        key.check(sources.random("gpt2"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(sources.EMBEDDED_DIR)
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(ConfigError, match="another tokenizer"):
        key.check(replace(llama, tokenizer=tokenizer))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, "fraction=1.5 is out of range"),
        ({"fraction": float("nan")}, "fraction=nan is out of range"),
        ({"homophones": 0}, "homophones=0 is out of range"),
        ({"secret": b"short"}, "16 bytes"),
        ({"vertical": (("stir", 1.0),)}, "unknown"),
    ],
)
def test_a_key_out_of_range_is_refused(llama: Bundle, options: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Key.draw(llama, **options)  # type: ignore[arg-type]
