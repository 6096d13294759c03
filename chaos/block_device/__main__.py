"""`python -m chaos.block_device`: cut real filesystems."""

from __future__ import annotations

import sys

from chaos.block_device.command import main

if __name__ == "__main__":
    sys.exit(main())
