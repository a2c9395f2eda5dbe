"""``python -m experiments`` is ``smd``."""

import sys

from experiments.commands.cli import main

sys.exit(main())
