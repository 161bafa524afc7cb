"""Envelopes of secrets: the format, and every way in which one must not open."""

from __future__ import annotations

import base64
import pickle
import string
import subprocess
import sys
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from plexd.nodeapi import DecryptError, decrypt_secret, seal_secret

NSK = b"k3Jx0q8ZrT5vW1yB7nM2cP4dF6gH9sLa"
TEXT = "bearer-tökén"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def refused(nsk: Any, ciphertext: Any, nonce: Any) -> DecryptError:
    with pytest.raises(DecryptError) as failure:
        decrypt_secret(nsk, ciphertext, nonce)
    return failure.value


@pytest.fixture(scope="module")
def envelope() -> tuple[str, str]:
    return seal_secret(NSK, TEXT)


# McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, the test cases of
# AES-256 without additional data whose plaintext is UTF-8 text.
VECTORS = {
    "test case 13": ("", "530f8afbc74536b9a963b4f1c4cb738b", ""),
    "test case 14": (
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
        "\0" * 16,
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors_open(name: str) -> None:
    sealed, tag, plaintext = VECTORS[name]
    ciphertext = encoded(bytes.fromhex(sealed + tag))
    assert decrypt_secret(bytes(32), ciphertext, encoded(bytes(12))) == plaintext


def test_an_envelope_is_the_encrypted_text_followed_by_its_tag(envelope: tuple[str, str]) -> None:
    sealed, nonce = map(base64.b64decode, envelope)
    assert (len(sealed), len(nonce)) == (len(TEXT.encode()) + 16, 12)
    assert AESGCM(NSK).decrypt(nonce, sealed, None) == TEXT.encode()


def test_two_envelopes_of_one_text_share_neither_nonce_nor_ciphertext() -> None:
    (first, one), (second, other) = (seal_secret(NSK, TEXT) for _ in range(2))
    assert first != second
    assert one != other


@pytest.mark.parametrize("part", ["ciphertext and tag", "nonce"])
def test_an_envelope_with_one_flipped_bit_does_not_open(
    part: str, envelope: tuple[str, str]
) -> None:
    sealed, nonce = map(base64.b64decode, envelope)
    target = nonce if part == "nonce" else sealed
    for bit in range(8 * len(target)):
        altered = bytearray(target)
        altered[bit // 8] ^= 1 << bit % 8
        pair = (sealed, bytes(altered)) if part == "nonce" else (bytes(altered), nonce)
        refused(NSK, *map(encoded, pair))


def test_an_envelope_cut_anywhere_does_not_open(envelope: tuple[str, str]) -> None:
    ciphertext, nonce = envelope
    sealed = base64.b64decode(ciphertext)
    for length in range(len(sealed)):
        refused(NSK, encoded(sealed[:length]), nonce)
        refused(NSK, encoded(sealed[length + 1 :]), nonce)
    for length in range(len(ciphertext)):
        refused(NSK, ciphertext[:length], nonce)


@pytest.mark.parametrize("length", [0, 8, 11, 13, 16])
def test_a_nonce_of_another_length_is_refused_even_if_it_would_open(length: int) -> None:
    nonce = bytes(range(length))
    sealed = AESGCM(NSK).encrypt(nonce, b"text", None) if length else bytes(20)
    refused(NSK, encoded(sealed), encoded(nonce))


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_of_another_length_is_refused_even_if_aes_has_it(length: int) -> None:
    key = bytes(length)
    sealed = AESGCM(key if length in {16, 24} else NSK).encrypt(bytes(12), b"text", None)
    refused(key, encoded(sealed), encoded(bytes(12)))
    with pytest.raises(ValueError, match="the node secret key must be 32 bytes"):
        seal_secret(key, "text")


def test_another_nodes_envelope_does_not_open(envelope: tuple[str, str]) -> None:
    refused(NSK[::-1], *envelope)


def test_an_envelope_with_additional_data_does_not_open() -> None:
    sealed = AESGCM(NSK).encrypt(bytes(12), b"text", b"node-1")
    refused(NSK, encoded(sealed), encoded(bytes(12)))


def test_bytes_that_are_no_utf8_do_not_come_out() -> None:
    sealed = AESGCM(NSK).encrypt(bytes(12), b"\xff\xfe", None)
    refused(NSK, encoded(sealed), encoded(bytes(12)))


def test_text_without_a_utf8_form_cannot_be_sealed() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        seal_secret(NSK, "\ud800")


# A nonce whose base64 holds both + and /, and an envelope whose base64 ends in one =.
NONCE = base64.b64decode("+/+/AAAAAAAAAAAA")
SEALED = encoded(AESGCM(NSK).encrypt(NONCE, b"text", None))[:-1]


@pytest.mark.parametrize(
    ("ciphertext", "nonce"),
    [
        (SEALED + "=", "-_-_AAAAAAAAAAAA"),
        (SEALED + "=", " +/+/AAAAAAAAAAAA"),
        (SEALED + "=", "+/+/AAAA AAAAAAAA"),
        (SEALED + "=", "+/+/AAAA\0AAAAAAAA"),
        (SEALED + "=", "+/+/AAAAAAAAAAAA===="),
        (SEALED + "=", "+/+/AAAA=AAAAAAAA"),
        (SEALED + "=", "\uff0b/+/AAAAAAAAAAAA"),
        (SEALED, "+/+/AAAAAAAAAAAA"),
        (SEALED + "==", "+/+/AAAAAAAAAAAA"),
        (SEALED + "=AAAA", "+/+/AAAAAAAAAAAA"),
    ],
    ids=repr,
)
def test_base64_in_any_but_its_one_spelling_is_refused(ciphertext: str, nonce: str) -> None:
    assert decrypt_secret(NSK, SEALED + "=", "+/+/AAAAAAAAAAAA") == "text"
    refused(NSK, ciphertext, nonce)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("place", [0, 1, 9, 16])
def test_base64_with_line_breaks_opens(line_break: str, place: int) -> None:
    ciphertext, nonce = SEALED + "=" + line_break, "+/+/AAAAAAAAAAAA"
    broken = nonce[:place] + line_break + nonce[place:] + line_break
    assert (
        decrypt_secret(NSK, ciphertext[:place] + line_break + ciphertext[place:], broken) == "text"
    )


def test_stray_bits_in_the_last_character_are_refused() -> None:
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    last = alphabet.index(SEALED[-1])
    assert last % 4 == 0  # two of its six bits are not part of the data
    for stray in (1, 2, 3):
        refused(NSK, SEALED[:-1] + alphabet[last + stray] + "=", encoded(NONCE))


@pytest.mark.parametrize("wrong", [None, 7, b"AAAA", ["AAAA"], object()], ids=type)
def test_values_of_another_type_are_refused_alike(wrong: object, envelope: tuple[str, str]) -> None:
    ciphertext, nonce = envelope
    refused(NSK, wrong, nonce)
    refused(NSK, ciphertext, wrong)
    refused(wrong, ciphertext, nonce)


def test_a_key_given_as_text_is_no_key(envelope: tuple[str, str]) -> None:
    refused(NSK.decode(), *envelope)
    with pytest.raises(ValueError, match="32 bytes"):
        seal_secret(NSK.decode(), TEXT)  # type: ignore[arg-type]  # that is the point


def test_failures_are_indistinguishable(envelope: tuple[str, str]) -> None:
    ciphertext, nonce = envelope
    failures = [
        refused(NSK[::-1], ciphertext, nonce),
        refused(NSK, "not base64!", nonce),
        refused(NSK, ciphertext, encoded(bytes(11))),
        refused(b"short", ciphertext, nonce),
        refused(NSK, None, nonce),
        refused(NSK, encoded(AESGCM(NSK).encrypt(bytes(12), b"\xff", None)), encoded(bytes(12))),
    ]
    told = {(type(f), repr(f), f.__cause__, f.__context__, _depth(f)) for f in failures}
    assert told == {
        (DecryptError, "DecryptError('nodeapi: decryption failed')", None, None, 2),
    }


def _depth(err: BaseException) -> int:
    """How many frames the traceback has: `refused` and `decrypt_secret`, wherever it failed."""
    return len(list(traceback.walk_tb(err.__traceback__)))


def test_a_decrypt_error_survives_being_pickled() -> None:
    copy = pickle.loads(pickle.dumps(DecryptError()))
    assert (type(copy), str(copy)) == (DecryptError, "nodeapi: decryption failed")


def test_importing_the_package_does_not_load_cryptography() -> None:
    script = "import sys, plexd.nodeapi; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
