"""The hybrid Double Ratchet as an immutable value: X25519 in every root step, ML-KEM-768 in some of them.

`seal` and `open` return the next ratchet, or raise and leave *self* the truth. Spec: docs/spec/ratchet.md, after
Signal's Double Ratchet; §-numbers below are of that page.
"""

from typing import Self

import msgspec

from aimessage.crypto import aead, dh, kdf, kem, labels
from aimessage.crypto.random import Entropy
from aimessage.e2ee.header import SALT_BYTES, Header
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

__all__ = ["KEM_AFTER_MESSAGES", "KEM_AFTER_MS", "MAX_CHAINS", "MAX_SKIP", "MAX_STORED", "SKIPPED_TTL_MS", "Ratchet"]

MAX_SKIP = 1_000
"""Messages that one header may jump over in one chain."""
MAX_STORED = 2_000
"""Skipped message keys that one session keeps."""
MAX_CHAINS = 5
"""Receiving chains whose skipped keys are kept."""
SKIPPED_TTL_MS = 30 * 86_400_000
KEM_AFTER_MESSAGES = 50
KEM_AFTER_MS = 3_600_000


class SkippedChain(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Keys of messages that a chain jumped over: number → (message key, when it was skipped in ms)."""

    dh: bytes
    keys: dict[int, tuple[bytes, int]]


class Ratchet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One session's keys. Empty bytes mean: none yet."""

    root: bytes
    our_dh: bytes
    their_dh: bytes
    sending: bytes = b""
    sent: int = 0
    sent_before: int = 0
    receiving: bytes = b""
    received: int = 0
    skipped: tuple[SkippedChain, ...] = ()
    kem_seed: bytes = b""
    kem_public: bytes = b""
    kem_ciphertext: bytes = b""
    their_kem: bytes = b""
    since_kem: int = 0
    kem_at: int = 0
    post_quantum: bool = True
    our_public: bytes = b""

    @classmethod
    def initiator(
        cls, secret: SecretBytes, their_prekey: bytes, *, now_ms: int, entropy: Entropy, post_quantum: bool = True
    ) -> Self:
        """Return the ratchet of the side that speaks first, towards the peer's signed prekey (§2)."""
        start = cls(root=secret.reveal, our_dh=b"", their_dh=their_prekey, kem_at=now_ms, post_quantum=post_quantum)
        return start._new_sending_chain(b"", now_ms, entropy)

    @classmethod
    def responder(cls, secret: SecretBytes, our_prekey: SecretBytes, *, now_ms: int, post_quantum: bool = True) -> Self:
        """Return the ratchet of the side whose signed prekey was used; it can send once it has opened (§2)."""
        return cls(root=secret.reveal, our_dh=our_prekey.reveal, their_dh=b"", kem_at=now_ms, post_quantum=post_quantum)

    @property
    def can_send(self) -> bool:
        """Whether there is a sending chain."""
        return bool(self.sending)

    def seal(
        self, session_id: bytes, plaintext: bytes, bound: bytes, *, prekey: bytes = b"", entropy: Entropy
    ) -> tuple[Self, bytes]:
        """Return the next ratchet and header ‖ ciphertext; *bound* is authenticated in front of the header.

        *prekey* is the encoded prekey part, while the peer may still need it. The caller's duty: `can_send`, and
        save the next ratchet before the bytes leave.
        """
        chain, message_key = _next_key(self.sending)
        header = Header(
            session_id=session_id,
            dh=self.our_public or dh.public_key(SecretBytes(self.our_dh)),  # an older vault did not keep it
            before=self.sent_before,
            number=self.sent,
            salt=entropy(SALT_BYTES),
            kem_public=self.kem_public,
            kem_ciphertext=self.kem_ciphertext,
            prekey=prekey,
        )
        encoded = header.encode()
        key, nonce = _box_key(message_key, header.salt)
        following = msgspec.structs.replace(self, sending=chain, sent=self.sent + 1, since_kem=self.since_kem + 1)
        return following, encoded + aead.seal_once(key, nonce, plaintext, bound + encoded)

    def open(
        self, header: Header, ciphertext: bytes, bound: bytes, *, now_ms: int, entropy: Entropy
    ) -> tuple[Self, bytes]:
        """Return the next ratchet and the plaintext.

        Raises DecryptionFailed: forged, replayed, out of bounds, or for a key that is gone; *self* is still the truth.
        """
        following, message_key = self._advance(header, now_ms, entropy)
        key, nonce = _box_key(message_key, header.salt)
        return following, aead.open_once(key, nonce, ciphertext, bound + header.encode())

    def _advance(self, header: Header, now_ms: int, entropy: Entropy) -> tuple[Self, bytes]:
        """Return the ratchet as it is behind this message, and the message's key."""
        if (young := _young(self.skipped, now_ms)) is not self.skipped:
            return msgspec.structs.replace(self, skipped=young)._advance(header, now_ms, entropy)
        for chain in self.skipped:
            if chain.dh == header.dh and header.number in chain.keys:
                return self._take_skipped(chain, header.number), chain.keys[header.number][0]
        ratchet = self
        if header.dh != self.their_dh:
            ratchet = self._skip_to(header.before, now_ms)._turn(header, now_ms, entropy)
        ratchet = ratchet._skip_to(header.number, now_ms)
        if header.number < ratchet.received:
            raise DecryptionFailed("the message was opened before, or its key has expired")
        chain_key, message_key = _next_key(ratchet.receiving)
        following = msgspec.structs.replace(
            ratchet, receiving=chain_key, received=ratchet.received + 1, since_kem=ratchet.since_kem + 1
        )
        return following, message_key

    def _turn(self, header: Header, now_ms: int, entropy: Entropy) -> Self:
        """A new chain of theirs: one root step to receive, one to send (§3)."""
        if bool(header.kem_ciphertext) != bool(self.kem_seed):
            # §4.2: chains alternate, so the answer to an advertised key stands in exactly the next one.
            raise DecryptionFailed("the post-quantum step does not fit")
        if header.kem_public and header.kem_public == self.their_kem:
            raise DecryptionFailed("an encapsulation key came twice")
        shared = b""
        if header.kem_ciphertext:
            shared = kem.ML_KEM_768.decapsulate(SecretBytes(self.kem_seed), header.kem_ciphertext).reveal
        root, chain = _root_step(self.root, dh.agree(SecretBytes(self.our_dh), header.dh) + shared)
        received = msgspec.structs.replace(
            self,
            root=root,
            their_dh=header.dh,
            receiving=chain,
            received=0,
            kem_seed=b"",
            kem_public=b"",
            their_kem=header.kem_public or self.their_kem,
            since_kem=0 if shared else self.since_kem,
            kem_at=now_ms if shared else self.kem_at,
        )
        return received._new_sending_chain(header.kem_public, now_ms, entropy)

    def _new_sending_chain(self, their_kem: bytes, now_ms: int, entropy: Entropy) -> Self:
        our_dh = SecretBytes(entropy(dh.KEY_BYTES))
        pair = dh.Pair(our_dh)
        shared, ciphertext = b"", b""
        if their_kem:
            secret, ciphertext = kem.ML_KEM_768.encapsulate(their_kem)
            shared = secret.reveal
        root, chain = _root_step(self.root, pair.agree(self.their_dh) + shared)
        dh.keep_loaded(pair)  # for the turn that answers it
        since, at = (0, now_ms) if shared else (self.since_kem, self.kem_at)
        seed = b""
        if self.post_quantum and (since >= KEM_AFTER_MESSAGES or now_ms - at >= KEM_AFTER_MS):
            seed = entropy(kem.SEED_BYTES)
        return msgspec.structs.replace(
            self,
            root=root,
            our_dh=our_dh.reveal,
            our_public=pair.public,
            sending=chain,
            sent=0,
            sent_before=self.sent,
            kem_seed=seed,
            kem_public=kem.ML_KEM_768.public_key(SecretBytes(seed)) if seed else b"",
            kem_ciphertext=ciphertext,
            since_kem=since,
            kem_at=at,
        )

    def _skip_to(self, number: int, now_ms: int) -> Self:
        """Derive and keep the keys of the current receiving chain up to *number*; within bounds, or refuse."""
        if not self.receiving or number <= self.received:
            return self
        if number - self.received > MAX_SKIP:
            raise DecryptionFailed("the message jumps too far ahead")
        chain_key, keys = self.receiving, {}
        for at in range(self.received, number):
            chain_key, message_key = _next_key(chain_key)
            keys[at] = (message_key, now_ms)
        return msgspec.structs.replace(
            self, receiving=chain_key, received=number, skipped=_kept(self.skipped, self.their_dh, keys, now_ms)
        )

    def _take_skipped(self, chain: SkippedChain, number: int) -> Self:
        rest = {at: entry for at, entry in chain.keys.items() if at != number}
        chains = (SkippedChain(chain.dh, rest) if each is chain else each for each in self.skipped)
        skipped = tuple(each for each in chains if each.keys)
        return msgspec.structs.replace(self, skipped=skipped, since_kem=self.since_kem + 1)


def _young(chains: tuple[SkippedChain, ...], now_ms: int) -> tuple[SkippedChain, ...]:
    """Return *chains* without the keys that have expired; the same object if there are none."""
    oldest = now_ms - SKIPPED_TTL_MS
    if all(next(iter(chain.keys.values()))[1] >= oldest for chain in chains):  # a chain's first key is its oldest
        return chains
    young = (
        SkippedChain(chain.dh, {at: entry for at, entry in chain.keys.items() if entry[1] >= oldest})
        for chain in chains
    )
    return tuple(chain for chain in young if chain.keys)


def _kept(
    chains: tuple[SkippedChain, ...], their_dh: bytes, keys: dict[int, tuple[bytes, int]], now_ms: int
) -> tuple[SkippedChain, ...]:
    """Return *chains* with *keys* added to their chain: young enough, of few enough chains, few enough in all."""
    oldest = now_ms - SKIPPED_TTL_MS
    young: list[dict[int, tuple[bytes, int]]] = []
    names: list[bytes] = []
    for chain in chains:
        young.append({at: entry for at, entry in chain.keys.items() if entry[1] >= oldest})
        names.append(chain.dh)
    if names and names[-1] == their_dh:
        young[-1] |= keys
    else:
        names.append(their_dh)
        young.append(keys)
    names, young = names[-MAX_CHAINS:], young[-MAX_CHAINS:]
    surplus = sum(map(len, young)) - MAX_STORED
    for entries in young:
        for at in sorted(entries)[: max(surplus, 0)]:
            del entries[at]
            surplus -= 1
    return tuple(SkippedChain(name, entries) for name, entries in zip(names, young, strict=True) if entries)


def _next_key(chain_key: bytes) -> tuple[bytes, bytes]:
    """Return the next chain key and this step's message key (§3.2)."""
    return kdf.hmac_sha256(chain_key, b"\x02"), kdf.hmac_sha256(chain_key, b"\x01")


def _root_step(root: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return the next root key and the key of the chain that begins (§3.1)."""
    output = kdf.hkdf(root, secret, labels.ROOT_STEP, 64)
    return output[:32], output[32:]


def _box_key(message_key: bytes, salt: bytes) -> tuple[SecretBytes, bytes]:
    # §3.3: the salt is drawn for each message, so a cloned state repeats no (key, nonce).
    output = kdf.hkdf(salt, message_key, labels.MESSAGE_KEY, 32 + aead.NONCE_BYTES)
    return SecretBytes(output[:32]), output[32:]
