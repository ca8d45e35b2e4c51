"""The ratchet's chain steps against published and frozen values."""

import json
import os
from pathlib import Path
from random import Random

import pytest

from aimessage.crypto import dh, kdf
from aimessage.e2ee import ratchet
from aimessage.e2ee.header import Header
from aimessage.e2ee.ratchet import Ratchet
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

VECTORS = os.environ.get("AIMESSAGE_VECTORS")
SESSION = bytes(16)


@pytest.mark.skipif(not VECTORS, reason="AIMESSAGE_VECTORS names no directory of vectors")
def test_the_chain_step_is_signals() -> None:
    case = json.loads((Path(VECTORS or "") / "signal-kats" / "signal_kats.json").read_text())["kdf_ck"]
    following, message_key = ratchet._next_key(bytes.fromhex(case["chain_key"]))
    assert following.hex() == case["next_chain_key"]
    assert kdf.hkdf(bytes(32), message_key, b"WhisperMessageKeys", 80)[:32].hex() == case["cipher_key"]


def test_a_frozen_conversation_still_opens() -> None:
    secret, prekey = SecretBytes(bytes(32)), SecretBytes(bytes(range(32)))
    start = Ratchet.initiator(secret, dh.public_key(prekey), now_ms=0, entropy=Random(1).randbytes)
    _, sealed = start.seal(SESSION, b"frozen", b"bound", entropy=Random(2).randbytes)
    assert kdf.sha256(sealed).hex() == FROZEN_SEALED
    header, part, ciphertext = Header.split(sealed)
    assert part is None
    answer = Ratchet.responder(secret, prekey, now_ms=0)
    _, plaintext = answer.open(header, ciphertext, b"bound", now_ms=0, entropy=Random(3).randbytes)
    assert plaintext == b"frozen"


FROZEN_SEALED = "433f0443611eb5144d9e4b9a21b69b26f82cfadba6f4d5a02c2298023c475d29"


def test_a_responder_cannot_send_before_it_has_heard() -> None:
    assert not Ratchet.responder(SecretBytes(bytes(32)), SecretBytes(bytes(32)), now_ms=0).can_send


def test_a_failed_open_leaves_every_byte_of_the_state() -> None:
    answer = Ratchet.responder(SecretBytes(bytes(32)), SecretBytes(bytes(range(32))), now_ms=0)
    header = Header(SESSION, dh.public_key(SecretBytes(bytes(range(1, 33)))), 0, 5, bytes(16))
    before = str(answer)
    with pytest.raises(DecryptionFailed):
        answer.open(header, bytes(200), b"bound", now_ms=0, entropy=Random(1).randbytes)
    assert str(answer) == before
