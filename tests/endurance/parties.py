"""Senders and recipients that outlive the relay: they keep what was acked and what was seen.

A sender repeats, after every reconnection, what was not acked, in order and under the same id. A recipient writes
down what it sees before it acknowledges, applies each (sender, id) once, and asks for everything again after every
reconnection. What is sealed means nothing to the relay, so a body is a function of its id: what comes is checked.
"""

import asyncio
import hashlib
import struct
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from picows import WSError

from aimessage.types import VaultId
from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    Bye,
    CaughtUp,
    Deliver,
    Post,
    Proved,
    Refused,
    RelayFrame,
    Subscribed,
)
from support.relay import Peer

__all__ = ["LinkLost", "Recipient", "Sender", "body_of", "frames_of", "until_cut"]

_WINDOW: Final = 200
_BATCH: Final = 25
_REQUEST_MARK: Final = 0x5EED << 48
"""Request ids are so large that no other integer on the wire looks like one; `wal_sync` finds them in a trace."""
_PAUSE_SECONDS: Final = 0.2


class LinkLost(Exception):
    """The relay ended a link while its party still had something to do."""


async def frames_of(peer: Peer) -> list[RelayFrame]:
    """Return what has come on the link, at least one frame. Raises LinkLost."""
    while not peer.frames:
        if peer.over:
            raise LinkLost
        await peer._receive()
    frames, peer.frames = peer.frames, []
    if any(isinstance(frame, Bye) for frame in frames):
        raise LinkLost
    return frames


async def until_cut(work: Coroutine[None, None, None]) -> None:
    """Run a party; a link that breaks, or one that is not made, is its end and no error."""
    try:
        await work
    except (LinkLost, OSError, WSError):
        pass
    except AssertionError as error:
        if "the link ended" not in str(error):
            raise


def body_of(message_id: bytes, size: int) -> bytes:
    """Return the one body that belongs to an id."""
    return hashlib.shake_128(message_id).digest(size)


@dataclass(slots=True)
class Letter:
    """One message of a sender; *posted* counts how often it went out."""

    number: int
    to: str
    message_id: bytes
    posted: int = 0

    @property
    def request_id(self) -> int:
        """The request id under which it always goes out: unique among all senders."""
        index, number = struct.unpack_from(">IQ", self.message_id, 4)
        return int(_REQUEST_MARK | index << 36 | number)


@dataclass
class _Party:
    """An identity that survives its links."""

    name: str
    secret: bytes
    vault_id: VaultId
    known: bool = False

    @asynccontextmanager
    async def link(self, url: str) -> AsyncIterator[Peer]:
        peer = Peer(url, self.name, self.secret)
        peer.vault_id = self.vault_id
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(peer)
            except AssertionError:  # no wire, or it ended before the greeting
                raise LinkLost from None
            answer = await (peer.login() if self.known else peer.register())
            if isinstance(answer, Refused) and answer.code == "relay_unavailable":
                raise LinkLost
            assert isinstance(answer, Proved), answer
            self.known = True
            yield peer


@dataclass
class Sender(_Party):
    """Posts to its recipients in turn, up to a window ahead of the answers."""

    index: int = 0
    recipients: tuple[str, ...] = ()
    size: int = 200
    window: int = _WINDOW
    limit: int | None = None
    letters: dict[int, Letter] = field(default_factory=dict)
    waiting: deque[Letter] = field(default_factory=deque)
    outstanding: dict[int, Letter] = field(default_factory=dict)
    acked: set[bytes] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    pause: float = _PAUSE_SECONDS
    is_refused: bool = False
    """Told to come back: nothing more goes out until the whole window has its answers, as every client does."""

    async def run(self, url: str) -> None:
        """Post until the link ends or, with *limit*, until so many have been acked."""
        self._repeat()
        async with self.link(url) as peer:
            self._fill(peer)
            while not self._done():
                for frame in await frames_of(peer):
                    await self._take(frame)
                self._fill(peer)

    def _done(self) -> bool:
        return self.limit is not None and len(self.acked) >= self.limit

    def _repeat(self) -> None:
        again = sorted([*self.outstanding.values(), *self.waiting], key=lambda letter: letter.number)
        self.waiting = deque(again)
        self.outstanding = {}
        self.is_refused = False

    def _fill(self, peer: Peer) -> None:
        while not (peer.over or self.is_refused) and len(self.outstanding) <= self.window - min(_BATCH, self.window):
            letters = self._next_batch()
            if not letters:
                return
            peer.send(*(self._post(letter) for letter in letters))

    def _next_batch(self) -> list[Letter]:
        batch: list[Letter] = []
        while len(batch) < min(_BATCH, self.window) and (letter := self._next()) is not None:
            batch.append(letter)
        return batch

    def _next(self) -> Letter | None:
        if self.waiting:
            return self.waiting.popleft()
        number = len(self.letters)
        if self.limit is not None and number >= self.limit:
            return None
        message_id = struct.pack(">4sIQ", b"\xa5mk\x5a", self.index, number)
        letter = Letter(number, self.recipients[number % len(self.recipients)], message_id)
        self.letters[number] = letter
        return letter

    def _post(self, letter: Letter) -> Post:
        letter.posted += 1
        self.outstanding[letter.request_id] = letter
        body = body_of(letter.message_id, self.size)
        return Post(letter.request_id, letter.to, letter.message_id, 0, 0, 0, body)

    async def _take(self, frame: RelayFrame) -> None:
        if isinstance(frame, Accepted):
            self.acked.add(self.outstanding.pop(frame.id).message_id)
            self.duplicates += frame.duplicate
        elif isinstance(frame, Refused):
            self.refusals[frame.message] += 1
            self.waiting.append(self.outstanding.pop(frame.id))
            self.is_refused = True
            self.pause = max(self.pause, frame.retry_after)
        if self.is_refused and not self.outstanding:  # repeat in order, when we were told to
            self._repeat()
            await asyncio.sleep(self.pause)
            self.pause = _PAUSE_SECONDS


@dataclass
class Recipient(_Party):
    """Writes down, acknowledges; now and then it forgets to, until the next subscription."""

    random: Random = field(default_factory=Random)
    size: int = 200
    forgetful: float = 0.2
    generation: int = 0
    seen: dict[tuple[str, bytes], list[int]] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    inversions: int = 0
    twice: int = 0
    altered: int = 0

    async def count_waiting(self, url: str) -> int:
        """Return how many messages wait; none is looked at."""
        async with self.link(url) as peer:
            return (await self._subscribe(peer)).waiting

    async def _subscribe(self, peer: Peer) -> Subscribed:
        self.generation += 1
        answer = await peer.subscribe(self.generation)
        if isinstance(answer, Refused) and answer.code == "relay_unavailable":
            raise LinkLost
        assert isinstance(answer, Subscribed), answer
        return answer

    async def run(self, url: str, *, until_caught_up: bool = False) -> None:
        """Receive until the link ends or, if so asked, until everything that waits has been seen."""
        async with self.link(url) as peer:
            answer = await self._subscribe(peer)
            caught_up = False
            while not (peer.over or (until_caught_up and caught_up)):
                frames = await frames_of(peer)
                mail = [frame for frame in frames if isinstance(frame, Deliver)]
                caught_up = any(isinstance(frame, CaughtUp) for frame in frames)
                for frame in mail:
                    self._apply(frame)
                if until_caught_up or self.random.random() >= self.forgetful:
                    self._acknowledge(peer, answer.subscription, mail)

    def _acknowledge(self, peer: Peer, subscription: int, mail: list[Deliver]) -> None:
        if mail and not peer.over:
            self.acknowledged.update(frame.position for frame in mail)
            peer.send(Acknowledge(subscription, [Ack(frame.position, frame.message_id) for frame in mail]))

    def _apply(self, frame: Deliver) -> None:
        self.altered += frame.sealed != body_of(frame.message_id, self.size)
        positions = self.seen.setdefault((frame.sender, frame.message_id), [])
        if not positions:
            number = int.from_bytes(frame.message_id[8:], "big")
            self.inversions += number < self.newest[frame.sender]
            self.newest[frame.sender] = max(number, self.newest[frame.sender])
        if frame.position not in positions:
            # A second copy is what a repeated post leaves once the first was acknowledged; never beside the first.
            self.twice += any(position not in self.acknowledged for position in positions)
            positions.append(frame.position)
