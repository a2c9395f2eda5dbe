"""Where the lab's shipped files lie, in a clone as in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The configuration folder: inside the package in a wheel, at the root of the repository in a clone.

    Raises:
        FileNotFoundError: neither exists, i.e. the installation is broken.
    """
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configuration beside {PACKAGE}: reinstall smd-research")
