"""Commit, then ack: decryption, the inbox row, the ratchet and the seen id are one transaction; showing comes after."""

from collections.abc import Sequence

from aimessage.client import control, gate, loops, shelf
from aimessage.client.account import Here
from aimessage.client.gate import Ruling
from aimessage.client.order import HOLD_MS, Heard, Place
from aimessage.client.owed import owe_receipt, owe_retry
from aimessage.client.pins import is_pinned, pin_of
from aimessage.client.shelf import Arrival, Content
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import Body, Receipts, decode_body
from aimessage.e2ee.fingerprint import fingerprint
from aimessage.e2ee.session import Envelope, Opened
from aimessage.errors import AimessageError, DecryptionFailed, MalformedOctets
from aimessage.types import MessageId, Username, parse_username
from aimessage.wire.frames import Deliver, MailClass

__all__ = ["take_in"]

_UNOPENED = 200  # kept of one sender; a relay could make up any number, of senders too
_UNOPENED_IN_ALL = 2_000


def take_in(here: Here, deliveries: Sequence[Deliver], *, until_handled: bool = False) -> list[bool]:
    """Give each delivery its one effect, all in one commit; a duplicate has none. Return which relay copies may go.

    With *until_handled* the relay's copy of a message stays until a consumer has acknowledged it.
    """
    with here.vault.transaction() as vault:
        intake = _Intake(here, vault, until_handled=until_handled)
        done = [intake.take(delivery) for delivery in deliveries]
        intake.save()
    return done


class _Intake:
    """One transaction's worth of deliveries; a peer is read and written once."""

    def __init__(self, here: Here, vault: Transaction, *, until_handled: bool) -> None:
        self._here = here
        self._vault = vault
        self._until_handled = until_handled
        self._now_ms = here.now_ms
        self._policy = gate.policy_of(vault)
        self._peers: dict[Username, Peer] = {}
        self._changed: set[Username] = set()

    def take(self, delivery: Deliver) -> bool:
        """Give *delivery* its effect; return whether the relay's copy may go."""
        envelope = _envelope(delivery)
        if envelope is None:
            return True
        if self._vault.has_seen(envelope.sender, envelope.message_id):
            return self._again(envelope)
        peer = self._peer(envelope.sender)
        try:
            opened = peer.conversation.open(
                self._here.account, envelope, self._vault, now=self._here.clock.now(), entropy=self._here.entropy
            )
            body = decode_body(opened.body)
        except (DecryptionFailed, MalformedOctets):
            return self._keep_unopened(peer, envelope, delivery.mail_class)
        ruling = gate.ruling_on(self._vault, self._policy, peer)
        if ruling is Ruling.IGNORE:
            self._vault.bump("strangers_turned_away")
            return True
        if is_pinned(peer, opened.identity, self._now_ms):
            return self._effect(peer, envelope, opened, body, ruling)
        # Quarantined as it came, and never shown: nothing of this conversation may follow from a changed key.
        self._changed.add(peer.name)
        if ruling is not Ruling.DISCARD:
            self._quarantine(envelope)
        return True

    def save(self) -> None:
        """Write the peers back."""
        for name in self._changed:
            self._vault.save_peer(self._peers[name])

    def _peer(self, name: Username) -> Peer:
        if name not in self._peers:
            self._peers[name] = self._vault.peer(self._here.address(name))
        return self._peers[name]

    def _again(self, envelope: Envelope) -> bool:
        """Return whether the relay's copy of a message that has had its effect may go."""
        found = self._vault.run(
            "SELECT row, state, wants FROM inbox WHERE sender = ? AND id = ? AND held = 1",
            (envelope.sender, envelope.message_id),
        ).fetchone()
        if found is None:
            return True
        row, state, wants = found
        if state not in ("shown", "handled", "dead"):
            if self._until_handled:
                return False
            owe_receipt(self._vault, envelope.sender, envelope.message_id, wants, Receipts.DELIVERED)
        self._vault.run("UPDATE inbox SET held = 0 WHERE row = ?", (row,))
        return True

    def _effect(self, peer: Peer, envelope: Envelope, opened: Opened, body: Body, ruling: Ruling) -> bool:
        peer.conversation = opened.conversation
        self._changed.add(peer.name)
        if opened.used_pair:
            self._vault.erase_pair(opened.used_pair)
        self._vault.mark_seen(envelope.sender, envelope.message_id, self._now_ms)
        self._heal(envelope)
        if body.is_control:
            control.heed(self._here, self._vault, peer, pin_of(opened.identity) or b"", body)
            return True
        match ruling:
            case Ruling.TURN_AWAY:  # not counted as heard: once it is accepted, the gap shows
                peer.turned_away += 1
                return True
            case Ruling.DISCARD:
                self._pass_over(peer, body)
                return True
            case Ruling.HOLD if peer.contact != "pending":
                gate.announce(self._here, self._vault, peer, fingerprint(opened.identity), self._now_ms)
            case _ if peer.contact == "requested":
                peer.contact = "accepted"
        body = loops.true_hops(self._vault, peer.name, body)
        arrival = self._arrival(envelope, Content(body, b"", fingerprint(opened.identity), peer.trust))
        arrival.flags = "loop" if loops.heard(self._vault, peer.name, body, self._now_ms) else ""
        # A stranger's copy at the relay goes at once: it must not fill the window that contacts need.
        arrival.held = self._until_handled and ruling is Ruling.ADMIT
        arrival.answers, arrival.wants = body.reply_to, body.receipts
        if ruling is Ruling.HOLD:
            arrival.state = "pending"
        self._place(peer, arrival, body)
        if ruling is Ruling.ADMIT and not arrival.held:
            owe_receipt(self._vault, peer.name, arrival.id, arrival.wants, Receipts.DELIVERED)
        return not arrival.held

    def _pass_over(self, peer: Peer, body: Body) -> None:
        """Count a message that is not kept: should we hear this peer again, what we refused is no gap."""
        heard = shelf.heard_of(self._vault, peer.name, body.vault_id) or Heard(body.vault_id, 1)
        shelf.save_heard(self._vault, peer.name, heard.after(body.sequence), self._now_ms)

    def _place(self, peer: Peer, arrival: Arrival, body: Body) -> None:
        """Put the message where its sequence says."""
        heard = shelf.heard_of(self._vault, peer.name, body.vault_id)
        if heard is None:
            # A restored vault has forgotten what came before: it cannot tell a gap from its own loss.
            forgetful = self._vault.counter("restored") and not shelf.has_heard(self._vault, peer.name)
            heard = Heard(body.vault_id, body.sequence if forgetful else 1)
        place = heard.place(body.sequence)
        arrival.vault, arrival.sequence = body.vault_id, body.sequence
        late = "late" if place is Place.LATE else ""
        expired = "expired" if body.expires_at and body.expires_at < self._now_ms else ""
        arrival.flags = " ".join(flag for flag in (arrival.flags, late, expired) if flag)
        if place is Place.EARLY:
            arrival.state, arrival.due = "held", self._now_ms + HOLD_MS
        row = shelf.put(self._vault, arrival)
        if place is not Place.EARLY and arrival.answers:
            shelf.let_through(self._here, self._vault, row)
        if place is Place.NEXT:
            heard = shelf.release_following(self._here, self._vault, peer.name, heard.after(body.sequence))
        shelf.save_heard(self._vault, peer.name, heard, self._now_ms)

    def _heal(self, envelope: Envelope) -> None:
        """What could not be opened before has come again: nobody needs to hear of the first time."""
        key = (envelope.sender, envelope.message_id)
        self._vault.run(
            "DELETE FROM inbox WHERE sender = ? AND id = ? AND kind = 'undecryptable' AND state IN ('asked', 'new')",
            key,
        )
        self._vault.run("DELETE FROM retries WHERE peer = ? AND id = ?", key)

    def _keep_unopened(self, peer: Peer, envelope: Envelope, mail_class: int) -> bool:
        """Keep what does not open; until it has come again, the relay's copy stays: this vault may be lost too."""
        if mail_class == MailClass.CONTROL:
            return True  # never asked for again
        key = (envelope.sender, envelope.message_id)
        known = self._vault.run("SELECT row, attempt, state FROM inbox WHERE sender = ? AND id = ?", key).fetchone()
        if known:
            row, attempt, state = known
            if envelope.attempt > attempt:  # asked for once, and again it does not open: now it is told
                self._vault.run("UPDATE inbox SET due = 0, attempt = ? WHERE row = ?", (envelope.attempt, row))
            return bool(state != "asked" or envelope.attempt > attempt)
        arrival = self._arrival(envelope, Content(None, envelope.sealed))
        arrival.kind = "undecryptable"
        ruling = gate.ruling_on(self._vault, self._policy, peer)
        if ruling is not Ruling.ADMIT or self._is_flooded(peer.name):
            self._vault.bump("undecryptable_dropped")
            return True
        if owe_retry(self._vault, *key, self._now_ms):
            arrival.state, arrival.due = "asked", self._now_ms + shelf.ASKED_MS
        shelf.put(self._vault, arrival)
        return arrival.state != "asked"

    def _is_flooded(self, sender: Username) -> bool:
        of_all, of_one = self._vault.run(
            "SELECT count(*), count(CASE sender WHEN ? THEN 1 END) FROM inbox "
            "WHERE kind = 'undecryptable' OR state = 'quarantined'",
            (sender,),
        ).fetchone()
        return bool(of_one >= _UNOPENED or of_all >= _UNOPENED_IN_ALL)

    def _quarantine(self, envelope: Envelope) -> None:
        key = (envelope.sender, envelope.message_id)
        known = self._vault.run("SELECT 1 FROM inbox WHERE sender = ? AND id = ?", key).fetchone()
        if not known and not self._is_flooded(envelope.sender):
            arrival = self._arrival(envelope, Content(None, envelope.sealed))
            arrival.state = "quarantined"
            shelf.put(self._vault, arrival)

    def _arrival(self, envelope: Envelope, content: Content) -> Arrival:
        return Arrival(envelope.sender, envelope.message_id, envelope.attempt, self._now_ms, content)


def _envelope(delivery: Deliver) -> Envelope | None:
    try:
        sender = parse_username(delivery.sender)
    except AimessageError:
        return None  # no agent has such a name: the relay made it up
    if len(delivery.message_id) != 16 or not 0 <= delivery.attempt < 1 << 16:
        return None
    return Envelope(sender, MessageId(delivery.message_id), delivery.attempt, delivery.sealed)
