"""``python -m experiments`` is ``smd``."""

import sys

from experiments.cli import main

sys.exit(main())
