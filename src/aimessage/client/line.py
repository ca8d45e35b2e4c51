"""What one commit saves for one recipient and seals at once: neighbours share an envelope and all that it costs."""

import msgspec

from aimessage.client import batches
from aimessage.client.owed import Owed, owed_to, report_of, were_told
from aimessage.client.pins import pin_of
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import (
    BATCH_BYTES,
    BODY_BYTES,
    MOST_PARTS,
    Body,
    batch_of,
    encode_body,
    part_bytes,
    spare_bytes,
)
from aimessage.e2ee.reports import receipts_within
from aimessage.types import MessageId

__all__ = ["Entry", "Line", "SealedEnvelope"]

_TAKEN_ALONG = 64  # receipts: more than the longest padding of a lone message holds


class Entry(msgspec.Struct, gc=False):
    """One message. Once it is sealed, either *kept* is its padded body, sealed at rest, or it is in a *batch*."""

    id: MessageId
    body: Body
    kept: bytes | None = None
    batch: MessageId | None = None


class SealedEnvelope(msgspec.Struct, frozen=True, gc=False):
    """One envelope that may leave: of a lone message, under its id, or of a batch of *count*."""

    id: MessageId
    sealed: bytes
    expires_at: int
    count: int


class Line:
    """Whatever was saved for this recipient before is sealed already: the caller's duty. *room*: see `save_all`."""

    def __init__(self, vault: Transaction, peer: Peer, room: int) -> None:
        self._vault = vault
        self._peer = peer
        self._vault_id = vault.vault_id()
        self.pin = pin_of(peer.conversation.identity)
        self._owed = owed_to(vault, peer.name, _TAKEN_ALONG)
        self._told: list[Owed] = []
        self._open: list[Entry] = []
        self._size = 0
        self._most = min(BATCH_BYTES, room - (BODY_BYTES - BATCH_BYTES))  # of the parts of one envelope
        self.envelopes: list[SealedEnvelope] = []

    def add(self, entry: Entry) -> None:
        """Give a message its place in our order. It is sealed when its envelope is full, or by `end`."""
        peer = self._peer
        peer.sent_sequence += 1
        entry.body = msgspec.structs.replace(entry.body, vault_id=self._vault_id, sequence=peer.sent_sequence)
        size = part_bytes(entry.body)
        # What ends early travels alone: the relay drops an envelope as a whole.
        if entry.body.expires_at or self._size + size > self._most or len(self._open) == MOST_PARTS:
            self._close()
        self._open.append(entry)
        self._size += size
        if entry.body.expires_at:
            self._close()

    def end(self) -> None:
        """Seal the last; keep how far the session has gone, and which receipts went along."""
        self._close()
        self._vault.save_peer(self._peer)
        if self._told:
            were_told(self._vault, self._peer.name, self._told)

    def _close(self) -> None:
        entries, self._open, self._size = self._open, [], 0
        if not entries:
            return
        vault, peer = self._vault, self._peer
        if len(entries) == 1:
            message_id, body = entries[0].id, self._with_receipts(entries[0].body)
            padded = encode_body(body)
            entries[0].kept = vault.seal("sent.body", message_id, padded)
        else:
            message_id = MessageId(vault.draw(16))
            body = self._with_receipts(batch_of([(entry.id, entry.body) for entry in entries]))
            padded = encode_body(body)
            batches.keep(vault, message_id, peer.name, self.pin, body, padded)
            for entry in entries:
                entry.batch = message_id
        peer.conversation, sealed = peer.conversation.seal(message_id, 0, padded, entropy=vault.draw)
        self.envelopes.append(SealedEnvelope(message_id, sealed, body.expires_at, len(entries)))

    def _with_receipts(self, body: Body) -> Body:
        """Return *body* with as many receipts as its padding has room for: it is not longer on its way."""
        if not self._owed or body.expires_at:  # a message that ends early would take them with it
            return body
        count = receipts_within(spare_bytes(body))
        told, self._owed = self._owed[:count], self._owed[count:]
        self._told += told
        return msgspec.structs.replace(body, report=report_of(told)) if told else body
