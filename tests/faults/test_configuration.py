"""A configuration file that ends anywhere is read or refused, never a traceback (A14)."""

from __future__ import annotations

from pathlib import Path

from plexd.agent.config import settings as config
from plexd.agent.errors import SettingsError

SAMPLE = Path(__file__).parent.parent / "golden" / "agent" / "full.yaml"


def test_a_file_cut_at_any_byte_is_read_or_refused_with_its_line(tmp_path: Path) -> None:
    whole = SAMPLE.read_bytes()
    path = tmp_path / "config.yaml"
    read = refused = 0
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        try:
            config.load_settings(path, {})
        except SettingsError as err:
            refused += str(path) in str(err)
        else:
            read += 1
    assert read + refused == len(whole) + 1
    assert read > 0
    assert refused > 0
