"""What makes reports durable, and how others read it behind: an append-only log in files."""

from plexd_server.store.journal.following import Follower
from plexd_server.store.journal.group_writer import GroupWriter
from plexd_server.store.journal.journal import Journal
from plexd_server.store.journal.records import TRIAL, Record, decode_record, encode_record

__all__ = [
    "TRIAL",
    "Follower",
    "GroupWriter",
    "Journal",
    "Record",
    "decode_record",
    "encode_record",
]
