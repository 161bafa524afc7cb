"""``python -m plexd``: the command line."""

from __future__ import annotations

import sys

from plexd.agent.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
