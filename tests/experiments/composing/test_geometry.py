"""Layers and context are known before a model is loaded, and are those of the loaded one."""

import json
from pathlib import Path

from experiments.composing.geometry import bounds
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
