"""From the outbox to the relay: in order, under a lock that all processes of this agent share."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from aimessage.client import batches, fates
from aimessage.client.account import Here
from aimessage.client.gate import shut_again
from aimessage.client.links import OpenLink
from aimessage.client.locks import peer_lock
from aimessage.client.sealing import Places, Row, refuse_misaddressed, take_ready, take_sealed
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.identity import Identity
from aimessage.errors import AimessageError, RecipientUnknown, TooLarge
from aimessage.types import MessageId, Username
from aimessage.wire.frames import Accepted, MailClass, Post

__all__ = ["work_off"]

_LATEST_MS = 1 << 50  # what a relay may say of a time


async def work_off(
    here: Here,
    link: OpenLink,
    recipient: Username,
    *,
    patient: bool = True,
    on_accepted: Callable[[AbstractSet[MessageId]], None] | None = None,
) -> None:
    """Send all that waits for *recipient*: control mail first, then messages in order.

    *on_accepted* is told which, lot by lot.

    A row whose self-certifying address names another key is settled as refused before anything is agreed with that
    key; so is one that the relay refuses for good: its fate tells.

    Raises PeerIdentityChanged; RecipientUnknown: its rows are dropped; a temporary refusal, and the row stays;
    VaultUnavailable: another process sends to *recipient*, and the caller is not *patient*.
    """
    async with peer_lock(here.profile.directory, recipient, here.waiting, patient=patient):
        is_more = True
        while is_more and (rows := await _next_lot(here, link, recipient)):
            accepted, is_more, trouble = await _post(here, link, recipient, rows)
            if on_accepted is not None:
                on_accepted(accepted)
            if trouble is not None:
                raise trouble


async def _next_lot(here: Here, link: OpenLink, recipient: Username) -> list[Row]:
    def room(mail_class: MailClass) -> int:
        return link.room(receipts=mail_class == MailClass.CONTROL)

    lot = take_ready(here, recipient, room)  # control mail first: a full mailbox stops messages, not receipts
    if lot is None:
        return []
    if lot.ready:
        return lot.rows
    try:
        await _ensure_session(here, link, recipient)
    except RecipientUnknown as error:
        _drop(here, recipient, error)
        raise
    return take_sealed(here, recipient, Places(lot.mail_class, room(lot.mail_class), link.body_bytes))


async def _ensure_session(here: Here, link: OpenLink, recipient: Username) -> None:
    with here.vault.reading() as vault:
        if vault.peer(here.address(recipient)).conversation.can_send:
            return
    from aimessage.client.sessions import begin_session  # most messages find a session

    def wanted(vault: Transaction, peer: Peer, identity: Identity) -> bool:
        refuse_misaddressed(here, vault, recipient, identity)
        return not peer.conversation.can_send and _waits(vault, recipient)

    await begin_session(here, link, recipient, wanted)


def _waits(vault: Transaction, recipient: Username) -> bool:
    return vault.run("SELECT 1 FROM outbox WHERE peer = ? LIMIT 1", (recipient,)).fetchone() is not None


async def _post(
    here: Here, link: OpenLink, recipient: Username, rows: Sequence[Row]
) -> tuple[set[MessageId], bool, AimessageError | None]:
    """Hand *rows* to the relay, all in one turn, and settle in one commit what it said of each.

    Return the accepted, whether more waits for *recipient*, and the first error that leaves its row in the outbox:
    nobody knows what became of it, or it may be sent again.
    """

    def post(row: Row) -> Callable[[int], Post]:
        return lambda request_id: Post(
            request_id, recipient, row.id, row.attempt, row.mail_class, row.expires_at, row.sealed
        )

    answers = list(zip(rows, await link.request_all([post(row) for row in rows], Accepted), strict=True))
    taken = [
        (row, min(answer.expires_at, _LATEST_MS)) for row, answer in answers if not isinstance(answer, AimessageError)
    ]
    accepted = {message_id: relay_due for row, relay_due in taken for message_id in row.ids}
    refusals = [(row, error) for row, error in answers if isinstance(error, AimessageError)]
    open_errors = [error for _, error in refusals if error.retryable or link.is_lost]
    # A power cut may undo this: then they go out again under the same ids, and the relay knows them.
    with here.vault.transaction(lasting=False) as vault:
        fates.settle_accepted(here, vault, [row.row for row, _ in taken], accepted)
        for row, error in refusals:
            if error in open_errors:
                continue
            if len(row.ids) > 1 and isinstance(error, TooLarge):
                batches.unpack(vault, row.id)  # another relay's limit, or a new one: each leaves by itself
            else:  # its own sender asks for its fate; those behind it in the line are not to blame
                fates.settle(here, vault, row.id, "refused", error.code)
        is_more = _waits(vault, recipient)
    return set(accepted), is_more, open_errors[0] if open_errors else None


def _drop(here: Here, recipient: Username, error: AimessageError) -> None:
    with here.vault.transaction() as vault:
        fates.settle_all_to(here, vault, recipient, error.code)
        shut_again(vault, recipient)
