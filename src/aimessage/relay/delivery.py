"""From a sender's Post to the recipient's mailbox and link: check, store with others in one commit, answer, wake."""

import asyncio
from collections.abc import Sequence

import msgspec

from aimessage.clock import Clock, milliseconds
from aimessage.errors import AimessageError, RelayUnavailable, StoreDamaged, UsernameMalformed
from aimessage.relay.hub import Hub
from aimessage.relay.limits import BOUNDS, Gate
from aimessage.relay.metrics import Metrics
from aimessage.relay.order import Order
from aimessage.relay.stillness import Stillness
from aimessage.stores.ports import Posting, Receipt, Refusal, Standing, Store
from aimessage.types import Username, parse_username
from aimessage.wire.frames import Accepted, MailClass, Post, Refused, RelayFrame

__all__ = ["Delivery"]

_ID_BYTES = 16
_ATTEMPTS = 1 << 16
_TIMES = 1 << 62
_CLASSES = frozenset(int(kind) for kind in MailClass)


class _Waiting(msgspec.Struct, eq=False):
    postings: list[Posting]
    answer: "asyncio.Future[list[Receipt | Refusal]]"


class Delivery:
    """Takes posts in. `run` must be running; what is posted while a commit is under way goes into the next one."""

    def __init__(
        self, store: Store, hub: Hub, clock: Clock, gate: Gate, metrics: Metrics, stillness: Stillness
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._gate = gate
        self._metrics = metrics
        self._stillness = stillness
        self._known: set[Username] = set()
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()

    async def post(self, sender: Username, posts: Sequence[Post], order: Order) -> list[RelayFrame]:
        """Store *posts* and return their answers, in order; what was accepted is on disk.

        *order* is the link's, and is told what has to come first from now on.
        """
        limited: dict[str, float] = {}
        met, most = self._met(sender, posts), self._gate.sealed_bytes
        answers: list[RelayFrame | None] = [
            None
            if post.to in met and len(post.sealed) <= most and _well_formed(post)
            else await self._refusal(sender, post, limited)
            for post in posts
        ]
        if limited:
            for post, answer in zip(posts, answers, strict=True):
                if isinstance(answer, Refused) and post.to in limited:
                    order.hold(post.to, answer)
        good = [post for post, refused in zip(posts, answers, strict=True) if refused is None]
        now_ms = milliseconds(self._clock.now()) if good else 0
        results = iter(await self._stored(_postings(sender, good, now_ms)) if good else ())
        return [
            refused if refused is not None else _answer(post, next(results), order)
            for post, refused in zip(posts, answers, strict=True)
        ]

    def forget(self, name: Username) -> None:
        """Ask the directory again before anything goes to *name*."""
        self._known.discard(name)

    async def run(self) -> None:
        """Commit what is waiting, again and again: everything that one turn of the loop brought, together."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(0)  # let every link that is ready in this turn add its posts
            batch = self._take_batch()
            await self._commit(batch)

    def _take_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        count = 0
        while self._waiting and count < BOUNDS.append_batch:
            batch.append(self._waiting.pop(0))
            count += len(batch[-1].postings)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        postings = [posting for waiting in batch for posting in waiting.postings]
        results: list[Receipt | Refusal]
        try:
            results = await self._store.mailboxes.append(postings)
        except StoreDamaged:
            raise
        except AimessageError as error:
            results = [Refusal("relay_unavailable", error.message, 5.0)] * len(postings)
        # For a repetition too: what the store kept of a commit that failed has not been delivered yet.
        self._hub.wake(
            {posting.owner for posting, result in zip(postings, results, strict=True) if isinstance(result, Receipt)}
        )
        at = 0
        for waiting in batch:
            if not waiting.answer.done():  # its link may have gone; the mail is stored all the same
                waiting.answer.set_result(results[at : at + len(waiting.postings)])
            at += len(waiting.postings)

    async def _stored(self, postings: list[Posting]) -> list[Receipt | Refusal]:
        try:
            with self._stillness.changing():
                return await self._append(postings)
        except RelayUnavailable as error:
            seconds = error.retry_after.total_seconds() if error.retry_after else 0.0
            return [Refusal(error.code, error.message, seconds)] * len(postings)

    async def _append(self, postings: list[Posting]) -> list[Receipt | Refusal]:
        waiting = _Waiting(postings, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.answer

    def _met(self, sender: Username, posts: Sequence[Post]) -> set[str]:
        """Return those recipients of *posts* about whom there is nothing to ask; most are between two who have met."""
        knows = self._gate.acquaintances.knows
        return {to for to in {post.to for post in posts} if to in self._known and knows(sender, to)}

    async def _refusal(self, sender: Username, post: Post, limited: dict[str, float]) -> Refused | None:
        if len(post.sealed) > self._gate.sealed_bytes:
            return Refused(post.id, "too_large", f"a sealed message has at most {self._gate.sealed_bytes} bytes here")
        if not _well_formed(post):
            return Refused(post.id, "bad_value", "the post is malformed")
        return await self._look_up(sender, post, limited)

    async def _look_up(self, sender: Username, post: Post, limited: dict[str, float]) -> Refused | None:
        """Refuse a name that nobody has, which counts as a look-up; above their limit every name that is new to
        *sender*, so that the answer does not tell whether there is such a name. *limited*: refused like that before
        in this lot, and so again, lest a later message overtakes."""
        is_registered = await self._is_registered(post.to)
        gate, is_new = self._gate, not self._gate.acquaintances.knows(sender, post.to)
        wait = limited.get(post.to) or (await gate.lookups.wait(sender) if is_new or not is_registered else 0.0)
        if wait:
            self._metrics.limit("lookups")
            limited[post.to] = max(wait, BOUNDS.held_seconds)
            return Refused(post.id, "rate_limited", "too many look-ups by this identity", limited[post.to])
        if not is_registered:
            await gate.lookups.take(sender)
            return Refused(post.id, "recipient_unknown", "nobody with this username is registered here")
        if is_new:
            gate.acquaintances.meet(sender, post.to)
        return None

    async def _is_registered(self, raw: str) -> bool:
        if raw in self._known:  # until `forget`, a name is registered for ever
            return True
        try:
            username = parse_username(raw)
        except UsernameMalformed:
            return False
        if username != raw or await self._store.directory.find(username) is None:
            return False
        if await self._store.standings.of(username) is Standing.REMOVED:
            return False
        if len(self._known) >= BOUNDS.known_names:
            self._known.clear()
        self._known.add(username)
        return True


def _postings(sender: Username, posts: Sequence[Post], now_ms: int) -> list[Posting]:
    return [
        Posting(
            post.to, sender, post.message_id, post.attempt,  # type: ignore[arg-type]  # both were looked at
            post.mail_class, now_ms, post.expires_at, post.sealed,
        )
        for post in posts
    ]  # fmt: skip


def _well_formed(post: Post) -> bool:
    return (
        len(post.message_id) == _ID_BYTES
        and 0 <= post.attempt < _ATTEMPTS
        and post.mail_class in _CLASSES
        and 0 <= post.expires_at < _TIMES
        and post.sealed != b""
    )


def _answer(post: Post, result: Receipt | Refusal, order: Order) -> RelayFrame:
    if isinstance(result, Refusal):
        return order.hold(post.to, Refused(post.id, result.code, result.message, result.retry_after))
    return Accepted(post.id, result.accepted_at, result.expires_at, result.duplicate)
