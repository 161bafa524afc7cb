"""Secrets on their way to one node: sealed by the control plane, opened with the node's key."""

from plexd.nodeapi.errors import DecryptError
from plexd.nodeapi.sealing import decrypt_secret, seal_secret

__all__ = ["DecryptError", "decrypt_secret", "seal_secret"]
