"""Ends with one sentence, and without a traceback from pip, if Python is too old.

It runs on any Python 3, so it uses nothing that an old one does not have.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # this line finds it
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit("plexd needs Python 3.11 or newer, this is {}: make PYTHON=python3.12".format(found))  # noqa: UP032  # old Pythons read this
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError:
    sys.exit("plexd needs Python's venv module: on Debian, apt-get install python3-venv")
