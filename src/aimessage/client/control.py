"""What the programs say to each other: receipts, and requests for what did not open. Batched, never answered."""

from contextlib import suppress

import msgspec

from aimessage.client import batches, fates, outbox
from aimessage.client.account import Here
from aimessage.client.dispatch import work_off
from aimessage.client.links import OpenLink
from aimessage.client.locks import peer_lock
from aimessage.client.owed import owed_to, report_of, were_told
from aimessage.client.sessions import begin_session
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import Body, Receipts
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.reports import IDS_PER_REPORT, decode_receipts, decode_retry, encode_retry
from aimessage.errors import AimessageError, MalformedOctets, Temporary
from aimessage.types import ID_BYTES, MessageId, Username

__all__ = ["ATTEMPTS", "Debts", "debts", "flush", "hear_receipts", "heed", "is_owed"]

ATTEMPTS = 3
"""How often one message is sealed anew for a recipient that could not open it."""
_RESET_MS = 3_600_000
_SOON = int(Receipts.SOON)  # as a plain number: a set of flags is slow to intersect
_LOOKED_AT = 512  # so many receipts go at once, whoever waits


def heed(here: Here, vault: Transaction, peer: Peer, pin: bytes, body: Body) -> None:
    """Act on control mail from *peer*, opened under the identity *pin*; what makes no sense changes nothing."""
    if body.kind == "receipt":
        hear_receipts(here, vault, peer, pin, body.report)
    elif body.kind == "retry" and peer.is_contact:
        with suppress(MalformedOctets):
            for message_id in decode_retry(body.report):
                _send_again(here, vault, peer.name, pin, message_id)


def hear_receipts(here: Here, vault: Transaction, peer: Peer, pin: bytes, report: bytes) -> None:
    """Believe *peer*'s receipts, which came alone or with a message; what makes no sense changes nothing."""
    with suppress(MalformedOctets):
        for receipt, ids in decode_receipts(report):
            fates.rise(here, vault, peer.name, pin, ids, fates.receipt_fate(receipt))


def _send_again(here: Here, vault: Transaction, peer: Username, pin: bytes, envelope_id: MessageId) -> None:
    """Seal anew what is still open of a message or a batch that *peer* could not open."""
    members = batches.members_of(vault, envelope_id)
    marks = ", ".join("?" * len(members))
    rows = vault.run(
        "SELECT id, attempt, body IS NULL AND batch IS NULL FROM sent "  # noqa: S608 - marks
        f"WHERE id IN ({marks}) AND peer = ? AND pin = ? AND fate IN ('waiting', 'accepted') "
        "AND (batch IS NULL OR batch = ? OR body IS NOT NULL)",
        (*members, peer, pin, envelope_id),
    ).fetchall()
    if not rows:
        return  # another's, sealed for another key, or over: nobody learns which
    ids, attempt = [MessageId(row[0]) for row in rows], max(row[1] for row in rows)
    if attempt >= ATTEMPTS or any(is_erased for *_, is_erased in rows):
        vault.run("DELETE FROM outbox WHERE id = ?", (envelope_id,))
        fates.end(here, vault, ids, "undecryptable", "undecryptable")
    else:
        outbox.enqueue_again(vault, peer, envelope_id, attempt + 1, ids)


class Debts(msgspec.Struct, frozen=True, gc=False):
    """What is to be sent that no living command is sending: *soon*, or *receipts* for which nobody waits."""

    soon: bool
    receipts: frozenset[MessageId]


def debts(here: Here) -> Debts:
    """Return what we owe."""
    with here.vault.reading() as vault:
        receipts = vault.run("SELECT id, fate FROM receipts LIMIT ?", (_LOOKED_AT,)).fetchall()
        retries = vault.run("SELECT 1 FROM retries WHERE asked = 0 LIMIT 1").fetchone()
        owners = vault.run(  # who saved a batch's first message sends all of it
            "SELECT DISTINCT sent.owner FROM outbox LEFT JOIN batches ON batches.id = outbox.id "  # noqa: S608 - constants
            f"LEFT JOIN sent ON sent.id = coalesce(substr(batches.members, 1, {ID_BYTES}), outbox.id)"
        ).fetchall()
    soon = retries is not None or len(receipts) == _LOOKED_AT or any(fate & _SOON for _, fate in receipts)
    return Debts(
        soon or any(not here.living.is_alive(owner) for (owner,) in owners),
        frozenset(message_id for message_id, _ in receipts),
    )


def is_owed(here: Here) -> bool:
    """Return whether anything is to be sent that no living command is sending."""
    owed = debts(here)
    return owed.soon or bool(owed.receipts)


async def flush(here: Here, link: OpenLink) -> None:
    """Send the receipts and retry requests that are owed, and whatever else waits in the outbox.

    One peer's trouble is not another's: what fails stays, for the next time.
    """
    for peer in _creditors(here, "receipts"):
        with here.vault.transaction(lasting=False) as vault:  # sealing it keeps it, before it leaves
            _write_receipts(here, vault, peer)
    for peer in _creditors(here, "retries WHERE asked = 0"):
        with suppress(AimessageError):
            await _ask_again(here, link, peer)
    for peer in outbox.waiting_peers(here):
        if not link.is_lost:
            with suppress(AimessageError):
                await work_off(here, link, peer, patient=False)  # one that hangs must not hold up the rest


def _creditors(here: Here, owed: str) -> list[Username]:
    with here.vault.reading() as vault:
        rows = vault.run(f"SELECT DISTINCT peer FROM {owed}").fetchall()  # noqa: S608 - constants
    return [Username(name) for (name,) in rows]


def _write_receipts(here: Here, vault: Transaction, peer: Username) -> None:
    owed = owed_to(vault, peer, IDS_PER_REPORT)
    if owed:
        outbox.save_control(here, vault, peer, "receipt", report_of(owed))
        were_told(vault, peer, owed)


async def _ask_again(here: Here, link: OpenLink, peer: Username) -> None:
    """Ask in a fresh session: the one that we have may be what is broken. At most one such session an hour and peer."""
    now_ms = here.now_ms

    def wanted(vault: Transaction, row: Peer, _: Identity) -> bool:
        if not _may_reset(row, now_ms):
            return False
        row.reset_at = now_ms
        _write_request(here, vault, peer)
        return True

    async with peer_lock(here.profile.directory, peer, here.waiting, patient=False):
        with here.vault.transaction() as vault:
            fresh = _may_reset(vault.peer(here.address(peer)), now_ms)
            if not fresh:
                _write_request(here, vault, peer)
        try:
            if fresh:
                await begin_session(here, link, peer, wanted)
        except Temporary:
            raise
        except AimessageError:  # its key has changed, or its bundle is not good: asking again changes nothing
            with here.vault.transaction() as vault:
                vault.run("UPDATE retries SET asked = 1 WHERE peer = ?", (peer,))
                vault.run("UPDATE inbox SET due = 0 WHERE sender = ? AND state = 'asked'", (peer,))
            raise


def _may_reset(peer: Peer, now_ms: int) -> bool:
    return not 0 <= now_ms - peer.reset_at < _RESET_MS  # a clock that went back does not forbid it for years


def _write_request(here: Here, vault: Transaction, peer: Username) -> None:
    rows = vault.run(
        "SELECT row, id FROM retries WHERE peer = ? AND asked = 0 ORDER BY row LIMIT ?", (peer, IDS_PER_REPORT)
    ).fetchall()
    if rows:
        report = encode_retry(MessageId(message_id) for _, message_id in rows)
        outbox.save_control(here, vault, peer, "retry", report)
        vault.run("UPDATE retries SET asked = 1 WHERE peer = ? AND row <= ?", (peer, rows[-1][0]))
