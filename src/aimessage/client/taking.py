"""What one call waits for and takes: all that comes to a `wait`, the answer to an `ask`.

Who is stopped after it has taken something, and before its caller has it, gives it back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from aimessage.client import consumers, fates
from aimessage.client.account import Here
from aimessage.client.consumers import Filter
from aimessage.client.message import Message
from aimessage.client.needs import Need
from aimessage.client.receiver import Receiver
from aimessage.types import MessageId

__all__ = ["answer_to", "what_comes"]

_SETTLE = timedelta(seconds=5)


async def what_comes(here: Here, receiver: Receiver, wanted: Filter, limit: int, patience: timedelta) -> list[Message]:
    """Return what is *wanted* as soon as there is something, up to *limit*; nothing once *patience* is over.

    Raises what ended the receiving; Temporary: nothing came, because nothing can.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience.total_seconds()
    batch: list[tuple[int, Message]] = []
    with _given_back(here, receiver, batch):
        async with receiver.receiving(Need.RECEIVE) as watch:
            settled_by = min(until, loop.time() + _SETTLE.total_seconds())
            while not receiver.settled and loop.time() < settled_by:
                await receiver.next(watch, settled_by - loop.time())
            batch += consumers.claim(here, wanted, limit)
            while not batch and loop.time() < until:
                await receiver.next(watch, min(1.0, until - loop.time()))
                batch += consumers.claim(here, wanted, limit)
            if not batch and receiver.trouble is not None:
                raise receiver.trouble
    return [message for _, message in batch]


async def answer_to(
    here: Here, receiver: Receiver, message_id: MessageId, accepted: Callable[[], Awaitable[None]], patience: timedelta
) -> Message:
    """Return the answer to a message of ours, which *accepted* hands to the relay.

    Raises TimeoutError: *patience* is over; what ended the message, or the receiving.
    """
    taken: list[tuple[int, Message]] = []
    with _given_back(here, receiver, taken):
        async with receiver.receiving(Need.RECEIVE) as watch, asyncio.timeout(patience.total_seconds()):
            await accepted()
            while (answer := consumers.take_answer(here, message_id)) is None:
                fates.fate_of(here, message_id)
                await receiver.next(watch, 1.0)
                consumers.release_what_is_due(here)
            taken.append((int(answer.cursor), answer))
    return answer


@contextmanager
def _given_back(here: Here, receiver: Receiver, taken: Sequence[tuple[int, Message]]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        consumers.give_back(here, [row for row, _ in taken], seen=False)
        receiver.changes.tell()
        raise
