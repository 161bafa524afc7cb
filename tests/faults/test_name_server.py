"""The system's resolver with a name server that cannot be relied on (D05)."""

from __future__ import annotations

import pytest

from faults.apart import needs
from faults.names import names_apart

pytestmark = [*needs("ip", "unshare"), pytest.mark.timeout(90)]


def test_whatever_a_name_server_does_a_report_is_made_once_it_says_where_to() -> None:
    done = names_apart()

    assert done.failures == {
        "failure": "RETRY: Temporary failure in name resolution",
        "no such name": "RETRY: Name or service not known",
        "no address": "RETRY: No address associated with hostname",
        "silence": "RETRY: no connection within 0.3s",
    }
    assert done.reached == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    assert done.questions >= 3  # one for each new connection
    assert done.of_a_hundred == ["127.0.0.1"]
