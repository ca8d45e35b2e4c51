"""What a token alone would not bring back: pins, contacts and gate, sealed in one blob that the relay keeps.

Spec: docs/spec/storage.md §3.
"""

import msgspec

from aimessage.client.account import Here, Live
from aimessage.client.links import OpenLink
from aimessage.client.prekeys import next_epoch
from aimessage.client.transaction import Peer, Transaction
from aimessage.crypto.aead import StorageKey
from aimessage.errors import DecryptionFailed, Denied, UsernameMalformed
from aimessage.octets import lp16, u64
from aimessage.types import parse_username
from aimessage.wire.frames import Done, FetchState, StateAnswer, StoreState
from aimessage.wire.limits import BLOB_BYTES

__all__ = ["fetch_state", "has_changes", "store_state"]

_OVERHEAD = 12 + 16  # nonce and tag
_WEIGHT = {"blocked": 0, "verified": 1, "pinned": 2}


class _PeerState(msgspec.Struct, frozen=True, array_like=True):
    name: str
    pin: bytes
    trust: str
    contact: str


class _State(msgspec.Struct, frozen=True, array_like=True):
    gate: str
    epoch: int
    peers: list[_PeerState]


def has_changes(vault: Transaction) -> bool:
    """Return whether the relay's copy is older than what we know."""
    return vault.counter("state_changes") != vault.counter("state_stored")


async def store_state(here: Here, live: Live) -> None:
    """Give the relay what has changed, if anything has. Of too many peers, those that somebody judged come first."""
    with here.vault.reading() as vault:
        if not has_changes(vault):
            return
    with here.vault.transaction() as vault:
        changes = vault.counter("state_changes")
        version = 1 + max(vault.counter("state_version"), live.proved.state_version)
        vault.save_counter("state_version", version)
        content = _encode(vault, here)
    blob = StorageKey(here.account.state_key).seal(content, _place(here, version), here.entropy)
    try:
        await live.link.request(lambda request_id: StoreState(request_id, version, blob), Done)
    except Denied:
        return  # another machine of this identity stored a newer one meanwhile: the next change goes on from there
    with here.vault.transaction() as vault:
        vault.save_counter("state_stored", changes)


async def fetch_state(here: Here, link: OpenLink, known_epoch: int) -> bool:
    """Bring back what the relay keeps for us; return whether it did. *known_epoch* is that of our bundle there.

    Where there is nothing, or nothing that our token opens, strangers have to wait for a word (gate `contacts`), and
    every peer is met anew.
    """
    answer = await link.request(FetchState, StateAnswer)
    try:
        octets = StorageKey(here.account.state_key).open(answer.blob, _place(here, answer.version))
        state = msgspec.msgpack.decode(octets, type=_State)
    except (DecryptionFailed, msgspec.DecodeError):
        state = None
    with here.vault.transaction() as vault:
        vault.save_counter("restored", 1)
        vault.save_counter("epoch", max(vault.counter("epoch"), state.epoch if state else 0, known_epoch))
        # Sessions that we start before we ever publish must be above those of the lost vault.
        vault.save_counter("epoch", next_epoch(here, vault))
        vault.save_meta("gate", state.gate.encode() if state else b"contacts")
        if state is None:
            return False
        vault.save_counter("state_version", answer.version)
        for each in state.peers:
            _adopt(here, vault, each)
        vault.save_counter("state_stored", vault.counter("state_changes"))
    return True


def _adopt(here: Here, vault: Transaction, state: _PeerState) -> None:
    try:
        peer = vault.peer(here.address(parse_username(state.name)))
    except UsernameMalformed:
        return
    peer.pin, peer.trust, peer.contact = state.pin or None, state.trust, state.contact
    vault.save_peer(peer)


def _encode(vault: Transaction, here: Here) -> bytes:
    gate = (vault.meta("gate") or b"open").decode()
    peers = [vault.peer(here.address(name)) for name in vault.peer_names()]
    peers.sort(key=_importance)
    known = [peer for peer in peers if peer.pin or peer.contact != "none"]
    rows = [_PeerState(peer.name, peer.pin or b"", peer.trust, peer.contact) for peer in known]
    while True:
        content = msgspec.msgpack.encode(_State(gate, vault.counter("epoch"), rows))
        if len(content) + _OVERHEAD <= BLOB_BYTES:
            return content
        del rows[len(rows) - len(rows) // 8 - 1 :]


def _importance(peer: Peer) -> tuple[int, int]:
    judged = _WEIGHT.get(peer.contact if peer.contact == "blocked" else peer.trust, 3)
    return judged, -peer.sent_sequence


def _place(here: Here, version: int) -> bytes:
    address = here.account.address
    return address.relay_id + lp16(address.username.encode()) + u64(version)
