"""Whom we know, and what a person has said of them: heard, blocked, verified. The gate itself is next door."""

import re
from typing import Protocol

import msgspec

from aimessage.client import gate, shelf
from aimessage.client.account import Here
from aimessage.client.links import OpenLink
from aimessage.client.owed import owe_retry
from aimessage.client.pins import identity_of_pin, pin_of
from aimessage.client.transaction import Peer, Transaction
from aimessage.clock import timestamp
from aimessage.e2ee.fingerprint import fingerprint, parse_recipient, require_match, safety_number, self_certifying
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.prekeys import identity_of, verify_bundle
from aimessage.e2ee.session import Conversation
from aimessage.errors import BadValue, NotFound, PeerIdentityChanged
from aimessage.types import MessageId, Username, parse_username
from aimessage.wire.frames import BundleAnswer, FetchBundle

__all__ = ["Contact", "accept", "block", "listed", "safety_number_with", "verify"]

_SHORT = re.compile(r"[0-9a-fA-F]{16}")
_SAFETY_DIGITS = 60


class Contact(msgspec.Struct, frozen=True):
    """One agent that we know; *fingerprint*, *address*, *trust* and *first_seen* are None as long as we have no key of
    it. *trust*: verified, pinned, first-use or changed. *contact*: none, requested, pending, accepted or blocked.

    *requests* counts its messages that wait for a word, *turned_away* those beyond the bound, which were not kept.
    """

    name: str
    fingerprint: str | None
    trust: str | None
    contact: str
    requests: int = 0
    turned_away: int = 0
    first_seen: str | None = None
    address: str | None = None


class _Way(Protocol):
    async def link(self) -> OpenLink: ...


def listed(here: Here) -> list[Contact]:
    """Return everybody we know, by name."""
    with here.vault.reading() as vault:
        return [_contact(vault, vault.peer(here.address(name))) for name in vault.peer_names()]


def accept(here: Here, name: str) -> Contact:
    """Hear this agent from now on; what waited comes next. Raises UsernameMalformed."""
    username = _named(here, name)
    with here.vault.transaction() as vault:
        gate.accept(here, vault, username)
        return _contact(vault, vault.peer(here.address(username)))


def block(here: Here, name: str) -> Contact:
    """Hear nothing of this agent from now on. Raises UsernameMalformed."""
    username = _named(here, name)
    with here.vault.transaction() as vault:
        gate.block(here, vault, username)
        return _contact(vault, vault.peer(here.address(username)))


def safety_number_with(here: Here, name: str) -> str:
    """Return the number that both sides see alike. Raises NotFound: we have no key of this agent."""
    username = _named(here, name)
    with here.vault.reading() as vault:
        pin, _, _ = vault.standing(username)
    if pin is None:
        raise NotFound(f"no key of {username} is known here", hint=f"aimessage contacts request {username}")
    return _safety_number(here, username, identity_of_pin(pin))


async def verify(here: Here, way: _Way, name: str, claim: str) -> Contact:
    """Pin and trust the key of *name* that *claim* names: the pinned one, one that came since, or the relay's.

    Raises PeerIdentityChanged: none of them is it; BadValue: *claim* is malformed or too short.
    """
    username = _named(here, name)
    digits, prefix = _parsed(username, claim)

    def fits(identity: Identity) -> bool:
        if digits is not None:
            return _safety_number(here, username, identity) == digits
        try:
            require_match(prefix, identity)
        except PeerIdentityChanged:
            return False
        return True

    with here.vault.reading() as vault:
        peer = vault.peer(here.address(username))
    known = [identity_of_pin(pin) for pin in (peer.pin, peer.presented) if pin is not None]
    found = next((identity for identity in known if fits(identity)), None)
    if found is None:
        link = await way.link()
        answer = await link.request(lambda request_id: FetchBundle(request_id, username), BundleAnswer)
        found = identity_of(verify_bundle(answer.bundle, here.address(username), now=here.clock.now()))
        if not fits(found):
            raise PeerIdentityChanged(
                f"this is not the fingerprint of {username}'s key; nothing was changed",
                hint=f"ask the operator of {username} for what aimessage whoami prints there; if it is still another, "
                "somebody stands between you",
            )
    with here.vault.transaction() as vault:
        peer = vault.peer(here.address(username))
        _believe(here, vault, peer, found)
        return _contact(vault, peer)


def _believe(here: Here, vault: Transaction, peer: Peer, identity: Identity) -> None:
    pin = pin_of(identity)
    if peer.pin != pin:
        peer.pin, peer.met_at = pin, here.now_ms
        # Nothing of the old key's conversation goes on, and the new key's owner has counted none of our messages.
        peer.conversation = Conversation.empty(here.address(peer.name))
        peer.epoch = peer.sent_sequence = peer.reset_at = 0
    peer.trust, peer.presented = "verified", None
    vault.save_peer(peer)
    _ask_for_quarantined(here, vault, peer)


def _ask_for_quarantined(here: Here, vault: Transaction, peer: Peer) -> None:
    """What came under the new key was not opened; now that it is believed, its sender is asked for it again."""
    rows = vault.run("SELECT row, id FROM inbox WHERE sender = ? AND state = 'quarantined'", (peer.name,)).fetchall()
    for row, message_id in rows:
        if owe_retry(vault, peer.name, MessageId(message_id), here.now_ms):
            vault.run(
                "UPDATE inbox SET kind = 'undecryptable', state = 'asked', due = ? WHERE row = ?",
                (here.now_ms + shelf.ASKED_MS, row),
            )


def _contact(vault: Transaction, peer: Peer) -> Contact:
    identity = identity_of_pin(peer.pin) if peer.pin else None
    (requests,) = vault.run(
        "SELECT count(*) FROM inbox WHERE sender = ? AND state = 'pending'", (peer.name,)
    ).fetchone()
    is_changed = peer.presented is not None and peer.presented != peer.pin
    return Contact(
        name=peer.name,
        fingerprint=fingerprint(identity) if identity else None,
        trust=("changed" if is_changed else peer.trust) if identity else None,
        contact=peer.contact,
        requests=requests,
        turned_away=peer.turned_away,
        first_seen=timestamp(peer.met_at),
        address=self_certifying(peer.name, identity) if identity else None,
    )


def _named(here: Here, name: str) -> Username:
    username = parse_username(name.partition("~")[0])
    if username == here.profile.username:
        raise BadValue("an agent is not its own contact", hint="aimessage users --all")
    return username


def _parsed(name: Username, claim: str) -> tuple[str | None, str]:
    """Return the digits of a safety number, or the base32 fingerprint of an address."""
    words = "".join(claim.split())
    if len(words) == _SAFETY_DIGITS and words.isascii() and words.isdigit():
        return words, ""
    if _SHORT.fullmatch(words):
        raise BadValue(
            "16 digits are for display, and too short to trust",
            hint=f"compare the whole address of {name} (aimessage whoami prints it there), or the safety number",
        )
    address = words if "~" in words else f"{name}~{words}"
    whose, prefix = parse_recipient(address)
    if whose != name or prefix is None:
        raise BadValue(f"this is the address of {whose}, not of {name}", hint="aimessage contacts list")
    return None, prefix


def _safety_number(here: Here, name: Username, identity: Identity) -> str:
    ours = (here.account.address, here.account.identity)
    return safety_number(ours, (here.address(name), identity))
