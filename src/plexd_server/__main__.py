"""``python -m plexd_server`` is ``plexd-server``."""

from plexd_server.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
