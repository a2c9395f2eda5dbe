"""What the settings take is what their commands know."""

from experiments.composing.declared import SIZES
from experiments.composing.settings import NEEDS, ONLY, SETTINGS
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.paths import conf_dir

COMMANDS = ("config", "bench", "serve", "table", "worker", "train", "report", "board")


def test_every_setting_is_one_of_some_command() -> None:
    texts = [(conf_dir() / f"{name}.yaml").read_text() for name in COMMANDS]
    texts += [path.read_text() for path in (conf_dir() / "architecture").glob("*.yaml")]  # each sets its own run
    for name in {*SETTINGS, *NEEDS, "trainer", "n_prompts"}:
        assert any(f"\n{name}:" in text for text in texts), name
    assert set(ONLY) - set(SETTINGS) == {"tuning", "trainer", "data.chat"}


def test_choices_are_those_there_are() -> None:
    assert SETTINGS["transport"].choices == tuple(TRANSPORTS)
    assert SETTINGS["size"].choices == SIZES
