"""Commit, then ack: decryption, the inbox row, the ratchet and the seen id are one transaction; showing comes after."""

from collections.abc import Sequence
from functools import cache, reduce
from operator import or_

import msgspec

from aimessage.client import control, gate, loops, shelf
from aimessage.client.account import Here
from aimessage.client.gate import Ruling
from aimessage.client.handover import Handover, Seat
from aimessage.client.hearing import Hearing
from aimessage.client.message import Frame, Message, incoming
from aimessage.client.order import HOLD_MS, Place
from aimessage.client.owed import is_unasked, owe_receipt, owe_receipts, owe_retry
from aimessage.client.pins import is_pinned, pin_of
from aimessage.client.shelf import Arrival, Content
from aimessage.client.transaction import Peer, Transaction
from aimessage.clock import milliseconds
from aimessage.e2ee.bodies import Body, Receipts, decode_body, parts_of
from aimessage.e2ee.fingerprint import fingerprint
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.session import Envelope, Opened
from aimessage.e2ee.text import reveal
from aimessage.errors import AimessageError, DecryptionFailed, MalformedOctets
from aimessage.types import MessageId, Username, parse_username
from aimessage.wire.frames import Deliver, MailClass

__all__ = ["take_in"]

_UNOPENED = 200  # kept of one sender; a relay could make up any number, of senders too
_UNOPENED_IN_ALL = 2_000


def take_in(
    here: Here, deliveries: Sequence[Deliver], handover: Handover | None = None, *, until_handled: bool = False
) -> list[bool]:
    """Give each delivery its one effect, all in one commit; a duplicate has none. Return which relay copies may go.

    Who waits for mail by *handover* is handed what is his, claimed in the same commit. With *until_handled* the relay's
    copy of a message stays until a consumer has acknowledged it.
    """
    with here.vault.transaction() as vault:
        intake = _Intake(here, vault, handover or Handover(), until_handled=until_handled)
        done = intake.take_all(deliveries)
        intake.save()
    for seat, row, message in intake.handed:
        seat.taken.append((row, message))
    return done


class _Intake:
    """One transaction's worth of deliveries; what all of them need is read and written once."""

    def __init__(self, here: Here, vault: Transaction, handover: Handover, *, until_handled: bool) -> None:
        self._here = here
        self._vault = vault
        self._until_handled = until_handled
        self._now = here.clock.now()
        self._now_ms = milliseconds(self._now)
        self._policy = cache(lambda: gate.policy_of(vault))
        self._peers: dict[Username, Peer] = {}
        self._changed: set[Username] = set()
        self._seen: set[tuple[Username, MessageId]] = set()
        self._opened: list[tuple[Username, MessageId]] = []
        self._delivered: list[tuple[Username, MessageId, int]] = []
        self._hearing = Hearing(here, vault, self._now_ms)
        self._fingerprints: dict[Identity, str] = {}
        self._is_healing = vault.run("SELECT 1 FROM retries LIMIT 1").fetchone() is not None
        self._handover = handover
        self._is_handing = handover.is_awaited and not shelf.has_unread(vault)
        self.handed: list[tuple[Seat, int, Message]] = []

    def take_all(self, deliveries: Sequence[Deliver]) -> list[bool]:
        """Give each its effect; return of each whether the relay's copy may go."""
        senders = {name: _sender(name) for name in {delivery.sender for delivery in deliveries}}
        mail = [(_envelope(senders[delivery.sender], delivery), delivery.mail_class) for delivery in deliveries]
        of_senders: dict[Username, list[MessageId]] = {}
        for envelope, _ in mail:
            if envelope is not None:
                of_senders.setdefault(envelope.sender, []).append(envelope.message_id)
        for sender, ids in of_senders.items():
            self._seen |= {(sender, message_id) for message_id in self._vault.seen_among(sender, ids)}
        return [envelope is None or self._take(envelope, mail_class) for envelope, mail_class in mail]

    def _take(self, envelope: Envelope, mail_class: int) -> bool:
        """Give a message its effect; return whether the relay's copy may go."""
        if (envelope.sender, envelope.message_id) in self._seen:
            return self._again(envelope)
        peer = self._peer(envelope.sender)
        try:
            opened = peer.conversation.open(
                self._here.account, envelope, self._vault, now=self._now, entropy=self._here.entropy
            )
            body = decode_body(opened.body)
        except (DecryptionFailed, MalformedOctets):
            return self._keep_unopened(peer, envelope, mail_class)
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
        """Write back what is kept once for all of them."""
        for name in self._changed:
            self._vault.save_peer(self._peers[name])
        self._vault.mark_seen(self._opened, self._now_ms)
        owe_receipts(self._vault, self._delivered, Receipts.DELIVERED)
        self._hearing.save()

    def _peer(self, name: Username) -> Peer:
        if name not in self._peers:
            self._peers[name] = self._vault.peer(self._here.address(name))
        return self._peers[name]

    def _again(self, envelope: Envelope) -> bool:
        """Return whether the relay's copy of what has had its effect may go."""
        key = envelope.sender, envelope.message_id
        columns = "SELECT row, id, state, wants FROM inbox INDEXED BY"
        alone = f"{columns} inbox_message WHERE sender = ? AND id = ? AND held = 1"
        of_batch = f"{columns} inbox_envelope WHERE sender = ? AND envelope = ? AND held = 1"
        found = self._vault.run(alone, key).fetchall() + self._vault.run(of_batch, key).fetchall()
        open_ones = [each for each in found if each[2] not in ("shown", "handled", "dead")]
        if open_ones and self._until_handled:
            return False
        for _, message_id, _, wants in open_ones:
            owe_receipt(self._vault, envelope.sender, MessageId(message_id), wants, Receipts.DELIVERED)
        self._vault.run_many("UPDATE inbox SET held = 0 WHERE row = ?", [(each[0],) for each in found])
        if not found:
            self._tell_again(envelope)
        return True

    def _tell_again(self, envelope: Envelope) -> None:
        """Owe a contact the receipt of a message that came in a batch before: it knows no such batch any more."""
        row = self._vault.run(
            "SELECT wants FROM inbox INDEXED BY inbox_message WHERE sender = ? AND id = ? AND kind = 'message' "
            "AND envelope IS NOT NULL AND state NOT IN ('pending', 'quarantined', 'dead')",
            (envelope.sender, envelope.message_id),
        ).fetchone()
        if row and gate.ruling_on(self._vault, self._policy, self._peer(envelope.sender)) is Ruling.ADMIT:
            owe_receipt(self._vault, envelope.sender, envelope.message_id, row[0], Receipts.DELIVERED)

    def _effect(self, peer: Peer, envelope: Envelope, opened: Opened, body: Body, ruling: Ruling) -> bool:
        peer.conversation = opened.conversation
        self._changed.add(peer.name)
        if opened.used_pair:
            self._vault.erase_pair(opened.used_pair)
        self._see(peer.name, envelope.message_id)
        if self._is_healing:
            self._heal(peer.name, envelope.message_id)
        if body.is_control:
            control.heed(self._here, self._vault, peer, pin_of(opened.identity) or b"", body)
            return True
        body = self._hear_receipts(peer, opened, body)
        content = Content(body, b"", self._fingerprint(opened.identity), peer.trust)
        if body.parts:
            return self._take_batch(peer, envelope, content, ruling)
        arrival = self._arrival(envelope, content)
        kept = self._admit(peer, arrival, body, ruling)
        if kept is Ruling.ADMIT and not arrival.held:
            self._delivered.append((peer.name, arrival.id, arrival.wants))
        return not arrival.held

    def _see(self, sender: Username, message_id: MessageId) -> None:
        key = sender, message_id
        self._seen.add(key)
        self._opened.append(key)

    def _take_batch(self, peer: Peer, envelope: Envelope, content: Content, ruling: Ruling) -> bool:
        """Give each message of a batch its effect; return whether the relay's copy may go."""
        assert content.body is not None  # noqa: S101 - the caller has it from there
        parts = parts_of(content.body)
        seen = self._vault.seen_among(peer.name, [message_id for message_id, _ in parts])
        here, is_held = list[tuple[MessageId, int]](), False
        for message_id, body in parts:
            part = msgspec.structs.replace(envelope, message_id=message_id)
            if message_id in seen or (peer.name, message_id) in self._seen:
                is_heard = ruling is Ruling.ADMIT  # who is not, is told nothing
                held, kept = self._came_before(part, envelope.message_id) if is_heard else (False, False)
            else:
                arrival = self._arrival(part, msgspec.structs.replace(content, body=body))
                arrival.envelope = envelope.message_id
                held, kept = self._take_part(peer, arrival, body, ruling)
            is_held = is_held or held
            if kept and not held:
                here.append((message_id, body.receipts))
            if ruling is not Ruling.ADMIT:  # so many of a stranger's wait, and no more
                ruling = gate.ruling_on(self._vault, self._policy, peer)
        if len(here) == len(parts):  # one receipt for all of them
            here = [(envelope.message_id, reduce(or_, (wants for _, wants in here)))]
        self._delivered += [(peer.name, message_id, wants) for message_id, wants in here]
        return not is_held

    def _take_part(self, peer: Peer, arrival: Arrival, body: Body, ruling: Ruling) -> tuple[bool, bool]:
        """Give a message of a batch its effect; return whether the relay's copy is needed, and whether it is kept."""
        self._see(peer.name, arrival.id)
        if self._is_healing:
            self._heal(peer.name, arrival.id)
        kept = self._admit(peer, arrival, body, ruling)
        return arrival.held, kept is Ruling.ADMIT

    def _came_before(self, part: Envelope, envelope_id: MessageId) -> tuple[bool, bool]:
        """Return of a contact's message that came before, in another envelope, what `_take_part` does: its vault was
        rolled back, or the relay took it for lost. From now on it is this envelope that counts.
        """
        found = self._vault.run(
            "SELECT row, state, held FROM inbox WHERE sender = ? AND id = ? AND kind = 'message' "
            "AND state NOT IN ('pending', 'quarantined', 'dead')",
            (part.sender, part.message_id),
        ).fetchone()
        if found is None:
            return False, False
        row, state, held = found
        held = bool(held) and state not in ("shown", "handled") and self._until_handled
        self._vault.run("UPDATE inbox SET envelope = ?, held = ? WHERE row = ?", (envelope_id, int(held), row))
        return held, True

    def _admit(self, peer: Peer, arrival: Arrival, body: Body, ruling: Ruling) -> Ruling:
        """Do with one message what the gate says; return that."""
        match ruling:
            case Ruling.TURN_AWAY:  # not counted as heard: once it is accepted, the gap shows
                peer.turned_away += 1
                return ruling
            case Ruling.DISCARD:
                self._hearing.pass_over(peer.name, body)
                return ruling
            case Ruling.HOLD if peer.contact != "pending":
                gate.announce(self._here, self._vault, peer, arrival.content.fingerprint, self._now_ms)
                self._is_handing = False  # this comes first
            case _ if peer.contact == "requested":
                peer.contact = "accepted"
        body = loops.true_hops(self._vault, peer.name, body)
        arrival.content = msgspec.structs.replace(arrival.content, body=body)
        arrival.flags = "loop" if loops.heard(self._vault, peer.name, body, self._now_ms) else ""
        # A stranger's copy at the relay goes at once: it must not fill the window that contacts need.
        arrival.held = self._until_handled and ruling is Ruling.ADMIT
        arrival.answers, arrival.wants = body.reply_to, body.receipts
        if ruling is Ruling.HOLD:
            arrival.state = "pending"
        self._place(peer, arrival, body)
        return ruling

    def _hear_receipts(self, peer: Peer, opened: Opened, body: Body) -> Body:
        """Believe the receipts that the message took along; return it without them."""
        if not body.report:
            return body
        control.hear_receipts(self._here, self._vault, peer, pin_of(opened.identity) or b"", body.report)
        return msgspec.structs.replace(body, report=b"")

    def _place(self, peer: Peer, arrival: Arrival, body: Body) -> None:
        """Put the message where its sequence says."""
        place = self._hearing.place(peer.name, body)
        arrival.vault, arrival.sequence = body.vault_id, body.sequence
        late = "late" if place is Place.LATE else ""
        expired = "expired" if body.expires_at and body.expires_at < self._now_ms else ""
        arrival.flags = " ".join(flag for flag in (arrival.flags, late, expired) if flag)
        if place is Place.EARLY:
            arrival.state, arrival.due = "held", self._now_ms + HOLD_MS
            shelf.put(self._vault, arrival)
            if self._hearing.is_patient_no_more(peer.name):
                self._is_handing = False
            return
        if not self._hand_over(peer, arrival, body):
            row = shelf.put(self._vault, arrival)
            if arrival.answers:
                shelf.let_through(self._here, self._vault, row)
            self._is_handing = False  # what follows must not overtake it
        if place is Place.NEXT and self._hearing.follow(peer.name, body):
            self._is_handing = False

    def _hand_over(self, peer: Peer, arrival: Arrival, body: Body) -> bool:
        """Put the message into the hands of a consumer that waits for it; return whether there is one."""
        if not self._is_handing or arrival.state != "new":
            return False
        if shelf.is_asked_for(self._vault, peer.name, arrival.answers):
            return False
        seat = self._handover.taker(peer.name, reveal(body.thread)[0])
        if seat is None:
            return False
        arrival.state, arrival.consumer = "claimed", self._here.living.token
        row = shelf.put(self._vault, arrival)
        frame = Frame(row, peer.name, self._here.profile.username, arrival.id, "message", self._now_ms, peer.contact)
        content, flags = arrival.content, tuple(arrival.flags.split())
        message = incoming(
            frame, body, fingerprint=content.fingerprint, trust=content.trust, flags=flags, redelivered=False
        )
        self.handed.append((seat, row, message))
        return True

    def _fingerprint(self, identity: Identity) -> str:
        if identity not in self._fingerprints:
            self._fingerprints[identity] = fingerprint(identity)
        return self._fingerprints[identity]

    def _heal(self, sender: Username, message_id: MessageId) -> None:
        """What could not be opened before has come again: nobody needs to hear of the first time."""
        self._vault.run(
            "DELETE FROM inbox WHERE sender = ? AND id = ? AND kind = 'undecryptable' AND state IN ('asked', 'new')",
            (sender, message_id),
        )
        self._vault.run("DELETE FROM retries WHERE peer = ? AND id = ?", (sender, message_id))

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
            if state != "asked" and is_unasked(self._vault, *key):
                return False  # it was shown for what it is, but its sender has not been asked yet
            return bool(state != "asked" or envelope.attempt > attempt)
        arrival = self._arrival(envelope, Content(None, envelope.sealed))
        arrival.kind = "undecryptable"
        ruling = gate.ruling_on(self._vault, self._policy, peer)
        if ruling is not Ruling.ADMIT or self._is_flooded(peer.name):
            self._vault.bump("undecryptable_dropped")
            return True
        self._is_handing, self._is_healing = False, True
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


def _sender(name: str) -> Username | None:
    try:
        return parse_username(name)
    except AimessageError:
        return None  # no agent has such a name: the relay made it up


def _envelope(sender: Username | None, delivery: Deliver) -> Envelope | None:
    if sender is None or len(delivery.message_id) != 16 or not 0 <= delivery.attempt < 1 << 16:
        return None
    return Envelope(sender, MessageId(delivery.message_id), delivery.attempt, delivery.sealed)
