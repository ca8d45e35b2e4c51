"""With the KEM off, our ratchet and the `doubleratchet` library derive the same keys and counters, both ways."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar

import pytest
from doubleratchet import AEAD, KDF, DiffieHellmanRatchet, DoubleRatchet, EncryptedMessage
from doubleratchet import Header as TheirHeader
from doubleratchet.aead import AuthenticationFailedException

from aimessage.crypto import aead, dh, kdf, labels
from aimessage.e2ee.header import Header
from aimessage.e2ee.ratchet import Ratchet
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

SESSION = b"session-id-16byt"
BOUND = b"bound"


class RootChain(KDF):
    """Also remembers every root key that the library has derived."""

    roots: ClassVar[set[bytes]] = set()

    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        output = kdf.hkdf(key, data, labels.ROOT_STEP, length)
        RootChain.roots.add(output[:32])
        return output


class MessageChain(KDF):
    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        assert length == 64
        return kdf.hmac_sha256(key, b"\x02") + kdf.hmac_sha256(key, b"\x01")


class Diffie(DiffieHellmanRatchet):
    entropy = Random(0)

    @staticmethod
    def _generate_priv() -> bytes:
        return Diffie.entropy.randbytes(32)

    @staticmethod
    def _derive_pub(priv: bytes) -> bytes:
        return dh.public_key(SecretBytes(priv))

    @staticmethod
    def _perform_diffie_hellman(own_priv: bytes, other_pub: bytes) -> bytes:
        return dh.agree(SecretBytes(own_priv), other_pub)


class SaltedBox(AEAD):
    """Our box under the library's message key; the salt travels in front of the header in the associated data."""

    salt = b""

    @staticmethod
    def _key(message_key: bytes, associated_data: bytes) -> tuple[SecretBytes, bytes]:
        header, _, _ = Header.split(associated_data[len(BOUND) :])
        output = kdf.hkdf(header.salt, message_key, labels.MESSAGE_KEY, 44)
        return SecretBytes(output[:32]), output[32:]

    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        return aead.seal_once(*SaltedBox._key(key, associated_data), plaintext, associated_data)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        try:
            return aead.open_once(*SaltedBox._key(key, associated_data), ciphertext, associated_data)
        except DecryptionFailed:
            raise AuthenticationFailedException from None


class Oracle(DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: TheirHeader) -> bytes:
        return associated_data + encode(header)


def encode(header: TheirHeader) -> bytes:
    ours = Header(
        SESSION, header.ratchet_pub, header.previous_sending_chain_length, header.sending_chain_length, SaltedBox.salt
    )
    return ours.encode()


@contextmanager
def salt(value: bytes) -> Iterator[None]:
    SaltedBox.salt = value
    yield
    SaltedBox.salt = b""


SETUP: dict[str, Any] = {
    "diffie_hellman_ratchet_class": Diffie, "root_chain_kdf": RootChain, "message_chain_kdf": MessageChain,
    "message_chain_constant": b"", "dos_protection_threshold": 1000, "max_num_skipped_message_keys": 2000,
    "aead": SaltedBox,
}  # fmt: skip


class OurSide:
    def __init__(self, ratchet: Ratchet, entropy: Random) -> None:
        self.ratchet = ratchet
        self.entropy = entropy

    def seal(self, plaintext: bytes) -> bytes:
        self.ratchet, sealed = self.ratchet.seal(SESSION, plaintext, BOUND, entropy=self.entropy.randbytes)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        header, _, ciphertext = Header.split(sealed)
        self.ratchet, plaintext = self.ratchet.open(header, ciphertext, BOUND, now_ms=0, entropy=self.entropy.randbytes)
        return plaintext


class TheirSide:
    def __init__(self, oracle: Oracle, entropy: Random) -> None:
        self.oracle = oracle
        self.entropy = entropy

    def seal(self, plaintext: bytes) -> bytes:
        with salt(self.entropy.randbytes(16)):
            message = asyncio.run(self.oracle.encrypt_message(plaintext, BOUND))
            return encode(message.header) + message.ciphertext

    def open(self, sealed: bytes) -> bytes:
        header, message = foreign(sealed)
        with salt(header.salt):
            return asyncio.run(self.oracle.decrypt_message(message, BOUND))


def foreign(sealed: bytes) -> tuple[Header, EncryptedMessage]:
    header, _, ciphertext = Header.split(sealed)
    return header, EncryptedMessage(TheirHeader(header.dh, header.before, header.number), ciphertext)


def we_start(seed: int) -> tuple[OurSide, TheirSide]:
    random = Random(seed)
    Diffie.entropy = Random(seed + 1)
    secret, prekey = SecretBytes(random.randbytes(32)), SecretBytes(random.randbytes(32))
    start = Ratchet.initiator(secret, dh.public_key(prekey), now_ms=0, entropy=random.randbytes, post_quantum=False)
    ours = OurSide(start, random)
    header, message = foreign(ours.seal(b"first"))
    with salt(header.salt):
        oracle, plaintext = asyncio.run(
            Oracle.decrypt_initial_message(
                **SETUP,
                shared_secret=secret.reveal,
                own_ratchet_priv=prekey.reveal,
                message=message,
                associated_data=BOUND,
            )
        )
    assert plaintext == b"first"
    return ours, TheirSide(oracle, Random(seed + 2))


def they_start(seed: int) -> tuple[OurSide, TheirSide]:
    random = Random(seed)
    Diffie.entropy = Random(seed + 1)
    secret, prekey = SecretBytes(random.randbytes(32)), SecretBytes(random.randbytes(32))
    with salt(random.randbytes(16)):
        oracle, message = asyncio.run(
            Oracle.encrypt_initial_message(
                **SETUP,
                shared_secret=secret.reveal,
                recipient_ratchet_pub=dh.public_key(prekey),
                message=b"first",
                associated_data=BOUND,
            )
        )
        sealed = encode(message.header) + message.ciphertext
    ours = OurSide(Ratchet.responder(secret, prekey, now_ms=0, post_quantum=False), random)
    assert ours.open(sealed) == b"first"
    return ours, TheirSide(oracle, Random(seed + 2))


@pytest.mark.parametrize("start", [we_start, they_start])
@pytest.mark.parametrize("seed", range(12))
def test_both_directions_agree_over_a_random_schedule(
    start: Callable[[int], tuple[OurSide, TheirSide]], seed: int
) -> None:
    ours, theirs = start(seed)
    random = Random(seed)
    wires: tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]] = ([], [])
    for step in range(150):
        towards = random.randrange(2)
        sender, receiver = (theirs, ours) if towards else (ours, theirs)
        wire = wires[towards]
        if random.random() < 0.5:
            body = b"%d" % step
            wire.append((sender.seal(body), body))
        elif wire:
            sealed, body = wire.pop(random.randrange(min(3, len(wire))))
            if random.random() < 0.15:
                continue  # lost
            if random.random() < 0.5:
                assert receiver.open(sealed) == body
            else:
                wire.insert(0, (sealed, body))
    assert_the_same_keys(ours, theirs)


def assert_the_same_keys(ours: OurSide, theirs: TheirSide) -> None:
    """One more turn each way, and then the chains, their counters and the root are the same on both sides."""
    assert theirs.open(ours.seal(b"our turn")) == b"our turn"
    assert ours.open(theirs.seal(b"their turn")) == b"their turn"
    symmetric = theirs.oracle.model.diffie_hellman_ratchet.symmetric_key_ratchet
    assert symmetric.sending_chain is not None
    assert ours.ratchet.receiving == symmetric.sending_chain.key
    assert ours.ratchet.received == symmetric.sending_chain.length
    assert ours.ratchet.root not in RootChain.roots  # our newest step, which they have not heard of yet
    assert theirs.open(ours.seal(b"our turn again")) == b"our turn again"
    assert ours.ratchet.root in RootChain.roots
    after = theirs.oracle.model.diffie_hellman_ratchet.symmetric_key_ratchet
    assert after.receiving_chain is not None
    assert (ours.ratchet.sending, ours.ratchet.sent) == (after.receiving_chain.key, after.receiving_chain.length)


@pytest.mark.parametrize("start", [we_start, they_start])
def test_root_chain_keys_and_counters_are_equal_once_both_have_heard_everything(
    start: Callable[[int], tuple[OurSide, TheirSide]],
) -> None:
    ours, theirs = start(7)
    for turn in range(10):
        assert theirs.open(ours.seal(b"a%d" % turn)) == b"a%d" % turn
        assert ours.open(theirs.seal(b"b%d" % turn)) == b"b%d" % turn
    model = theirs.oracle.model.diffie_hellman_ratchet
    ratchet = ours.ratchet
    symmetric = model.symmetric_key_ratchet
    assert symmetric.sending_chain is not None
    assert (ratchet.receiving, ratchet.received) == (symmetric.sending_chain.key, symmetric.sending_chain.length)
    assert theirs.open(ours.seal(b"last")) == b"last"  # our newest chain: now their root has taken the same step
    after = theirs.oracle.model.diffie_hellman_ratchet.symmetric_key_ratchet
    assert after.receiving_chain is not None
    assert (ours.ratchet.sending, ours.ratchet.sent) == (after.receiving_chain.key, after.receiving_chain.length)
    assert after.previous_sending_chain_length == 1
