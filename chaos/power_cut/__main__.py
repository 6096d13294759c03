"""`python -m chaos.power_cut`: cut on paper, in every way."""

from __future__ import annotations

import sys

from chaos.power_cut.command import main

if __name__ == "__main__":
    sys.exit(main())
