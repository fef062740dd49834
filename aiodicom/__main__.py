"""`python -m aiodicom` is the command `aiodicom`."""

from __future__ import annotations

import sys

from aiodicom.cli import main

if __name__ == "__main__":
    sys.exit(main())
