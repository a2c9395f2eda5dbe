"""Where the time of a decode step goes: seven stages, three send orders (arXiv 2409.19134, Fig. 7)."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

from experiments.benches._users import Crowd, endless
from experiments.benches.case import Modes, Settings
from smd_research.defenses.smd.requests import SendOrder, ServiceOptions
from smd_research.models import Bundle, sources

MODELS = {"small": ("embedded", "100m"), "full": ("8b",)}
USERS = {"small": 8, "full": 32}
PROMPT, NEW = 64, {"small": 24, "full": 64}


def cases(settings: Settings) -> Iterator[Modes]:
    """No protection and each send order, all with the stages measured."""
    users, new = USERS[settings.size], NEW[settings.size]
    for name in MODELS[settings.size]:
        bundle = endless(sources.embedded() if name == "embedded" else sources.random(name, device=settings.device))
        with ExitStack() as stack:

            def crowd(
                mode: str,
                order: SendOrder = SendOrder.AFTER_Q,
                stack: ExitStack = stack,
                bundle: Bundle = bundle,
            ) -> Crowd:
                options = ServiceOptions(send_order=order)
                cores = os.cpu_count() or 1
                return stack.enter_context(
                    Crowd(bundle, mode, users, PROMPT, new, cores, options=options, clocked=True)
                )

            modes = {
                "none": crowd("none").round,
                "after_q": crowd("smd", SendOrder.AFTER_Q).round,
                "after_kv": crowd("smd", SendOrder.AFTER_KV).round,
                "after_out": crowd("smd", SendOrder.AFTER_ATTENTION).round,
            }
            yield Modes(
                f"{name} users={users} prompt={PROMPT} new={new}",
                modes,
                "ms/token",
                labels={"model": name, "users": users, "prompt": PROMPT, "new": new},
            )
