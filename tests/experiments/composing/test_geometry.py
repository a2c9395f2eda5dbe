"""Layers, context and template are known before a model is loaded, and are those of the loaded one."""

import json
from pathlib import Path

from experiments.composing.geometry import bounds, chats
from smd_research.models.sources import embedded


def test_the_embedded_models_are_those_it_has_when_loaded() -> None:
    geometry = embedded().geometry
    found = bounds({"_target_": "smd_research.models.sources.embedded"})
    assert found == {"LAYERS": geometry.layers, "CONTEXT": geometry.context}


def test_a_folder_says_what_it_says(tmp_path: Path) -> None:
    node = {"_target_": "smd_research.models.sources.local", "path": str(tmp_path)}
    assert bounds(node) == {}
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 3, "n_positions": 64}))
    assert bounds(node) == {"LAYERS": 3, "CONTEXT": 64}
    (tmp_path / "config.json").write_text("{broken")
    assert bounds(node) == {}
    assert bounds({"_target_": "smd_research.models.sources.hub", "name": "gpt2"}) == {}


def test_a_template_is_known_where_the_tokenizer_lies_at_hand(tmp_path: Path) -> None:
    node = {"_target_": "smd_research.models.sources.local", "path": str(tmp_path)}
    assert chats(node) is None
    config = tmp_path / "tokenizer_config.json"
    for text, expected in (("{}", False), ('{"chat_template": "{{ messages }}"}', True), ("{broken", None)):
        config.write_text(text)
        assert chats(node) is expected
    config.write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert chats(node) is True
    assert chats({"_target_": "smd_research.models.sources.embedded"}) is False
    assert chats({"_target_": "smd_research.models.sources.random", "family": "llama"}) is False
    assert chats({"_target_": "smd_research.models.sources.hub", "name": "gpt2"}) is None
