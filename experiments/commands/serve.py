"""``smd serve``: play the untrusted party for runs on other hosts, ``smd run transport=tcp address=HOST:PORT``.

One connection after another. The channel is neither authenticated nor encrypted: whoever reaches the port is served.
"""

import contextlib
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.composing.app import launch
from experiments.composing.cells import named, values_of
from experiments.composing.components import counted_options, version_of
from experiments.trials.hosting import Offer, host, provider
from experiments.trials.pairing import card
from smd_research.core.progress import say


def offer(cfg: DictConfig, choice: str) -> Offer:
    """What a composed configuration serves.

    Args:
        cfg: a composed ``serve`` configuration.
        choice: the option of the defense group.
    """
    from experiments.composing.build import build
    from smd_research.defenses.base import Defense
    from smd_research.models.bundle import Bundle

    bundle: Bundle = build(values_of(cfg.model), Bundle, device=cfg.device, dtype=cfg.dtype)
    parts = values_of(cfg.defense)
    defense: Defense = build(parts, Defense)
    shown = card(bundle, named(counted_options(parts), choice), version_of(parts))
    return Offer(provider(defense, bundle), shown, cfg.tap, cfg.timeout_s, cfg.idle_s)


def serve(cfg: DictConfig, choice: str) -> None:
    """Listen, load, say so, and serve until interrupted or the number of connections is reached."""
    import torch

    from smd_research.boundary.addresses import address_of, listen

    torch.set_num_threads(cfg.threads)
    with contextlib.closing(listen(str(cfg.address))) as listener:
        try:
            served = offer(cfg, choice)
            what = f"{served.card['defense']['name']} on {served.card['model']}"
            tap = "with" if served.tap else "without"
            print(
                f"serving {what} at {address_of(listener)}, {tap} measurement tap; not authenticated, not encrypted; "
                "Ctrl-C stops",
                flush=True,
            )
            host(listener, served, cfg.connections)
        except KeyboardInterrupt:
            say("stopped")


def main(argv: Sequence[str] | None = None) -> int:
    """The ``smd serve`` command."""

    def one(cfg: DictConfig) -> None:
        serve(cfg, str(HydraConfig.get().runtime.choices["defense"]))

    return launch(one, "serve", "smd serve", argv)


if __name__ == "__main__":
    sys.exit(main())
