"""Envelopes open with their key, whole, and in no other way."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.nodeapi import DecryptError, decrypt_secret, seal_secret

keys = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]))
anything = st.none() | st.integers() | st.text() | st.binary() | st.lists(st.integers())


@given(nsk=keys, plaintext=texts)
def test_what_was_sealed_opens_as_it_was(nsk: bytes, plaintext: str) -> None:
    assert decrypt_secret(nsk, *seal_secret(nsk, plaintext)) == plaintext


@given(nsk=keys, other=keys, plaintext=texts)
def test_another_key_opens_nothing(nsk: bytes, other: bytes, plaintext: str) -> None:
    if nsk == other:
        return
    with pytest.raises(DecryptError):
        decrypt_secret(other, *seal_secret(nsk, plaintext))


@given(nsk=keys, plaintext=texts, data=st.data())
def test_a_cut_envelope_does_not_open(nsk: bytes, plaintext: str, data: st.DataObject) -> None:
    ciphertext, nonce = seal_secret(nsk, plaintext)
    sealed = base64.b64decode(ciphertext)
    keep = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(DecryptError):
        decrypt_secret(nsk, base64.b64encode(sealed[:keep]).decode(), nonce)


@given(nsk=anything | keys, ciphertext=anything, nonce=anything)
def test_nonsense_ends_in_a_decrypt_error(nsk: object, ciphertext: object, nonce: object) -> None:
    with pytest.raises(DecryptError) as failure:
        decrypt_secret(nsk, ciphertext, nonce)  # type: ignore[arg-type]  # that is the point
    assert str(failure.value) == "nodeapi: decryption failed"
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None
