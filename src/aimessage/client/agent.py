"""The public face: an agent that sends and listens. What it does, its neighbours do; here it is only put together."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

from aimessage.client import inbox, outbox
from aimessage.client.account import Here, file_lock, log_in, open_here
from aimessage.client.config import Settings, load_settings
from aimessage.client.enrolment import register, restore, token_text
from aimessage.client.link import Link
from aimessage.client.message import Message
from aimessage.client.outbox import Letter
from aimessage.client.prekeys import PAIRS_LOW, publish_prekeys, stock_pairs
from aimessage.client.profile import Profile, load_profile
from aimessage.e2ee.fingerprint import fingerprint, parse_recipient, self_certifying
from aimessage.errors import (
    AimessageError,
    BadValue,
    IdentityExists,
    MailboxFull,
    NoIdentity,
    NotARelay,
    RelayUnreachable,
    Temporary,
)
from aimessage.types import MessageId, Username, message_id_text
from aimessage.wire.frames import (
    Ack,
    Acknowledge,
    Deliver,
    ListUsers,
    PairsLow,
    RelayFrame,
    Subscribe,
    Subscribed,
    Users,
)
from aimessage.wire.limits import PAIRS_PER_STOCK

__all__ = ["Agent", "Sent", "UserPresence", "connect", "register", "restore", "token_text"]

_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 15.0
_PUSHES = 4096  # frames that wait to be taken in; a relay's window is 1 000 of them


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of one send; *state* is accepted: the relay has it on disk."""

    id: str
    to: str
    state: str


@dataclass(frozen=True, slots=True)
class UserPresence:
    """One registered agent and whether it has a link now: the relay's word, a hint."""

    username: str
    online: bool


class connect:  # noqa: N801 - used as a function, like open()
    """`async with connect(settings) as me:` opens the agent of *settings*, or of the environment.

    An agent that is not on this machine yet is restored if the environment holds its username, server and token.

    Raises NoIdentity and what `restore` raises.
    """

    def __init__(self, settings: Settings | None = None, *, agent: str | None = None) -> None:
        self._settings = settings or load_settings(os.environ, agent=agent)
        self._agent: Agent | None = None

    async def __aenter__(self) -> "Agent":
        settings = self._settings
        try:
            profile = load_profile(settings)
        except NoIdentity:
            if not (settings.username and settings.server and settings.token):
                raise
            try:
                profile = await restore(settings, settings.username)
            except IdentityExists:  # another command of this agent restored it meanwhile
                profile = load_profile(settings)
        self._agent = Agent(open_here(profile, settings.passphrase))
        return self._agent

    async def __aexit__(self, *_: object) -> None:
        if self._agent is not None:
            self._agent.close()


class Agent:
    """One agent of this machine. One link is opened when it is first needed, and again after it is lost."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._link: Link | None = None
        self._linking = asyncio.Lock()

    @property
    def profile(self) -> Profile:
        """Who this is, and where."""
        return self._here.profile

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of our identity."""
        return fingerprint(self._here.account.identity)

    @property
    def address(self) -> str:
        """Our self-certifying address, `name~…`: it pins without trust in the relay."""
        return self_certifying(self._here.profile.username, self._here.account.identity)

    def close(self) -> None:
        """Close the link and the vault."""
        if self._link is not None:
            self._link.close()
        self._here.vault.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(  # noqa: PLR0913 - the fields of a message
        self,
        to: str,
        text: str | None = None,
        *,
        data: object = None,
        thread: str | None = None,
        reply_to: str | None = None,
        ttl: timedelta | None = None,
        expects_reply: bool = True,
        timeout: timedelta = timedelta(seconds=30),  # noqa: ASYNC109 - the message outlives the call
    ) -> Sent:
        """Send one message and return once the relay has it on disk.

        Temporary failures are retried until *timeout*; after it the message stays in the outbox, and the agent's
        next command sends it.

        Raises InvalidInput (to oneself, too), RecipientUnknown, PeerIdentityChanged, OverLimit, Denied, or Temporary
        with the id.
        """
        recipient, prefix = parse_recipient(to)
        if recipient == self.profile.username:
            raise BadValue("an agent cannot write to itself", hint="aimessage users --all")
        message_id = outbox.save(
            self._here, recipient, Letter(text, data, thread, reply_to, ttl, expects_reply), prefix=prefix
        )
        last: AimessageError = RelayUnreachable("the relay did not answer in time")
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                for delay in _Delays():
                    try:
                        await self._work_off(recipient)
                        outbox.require_accepted(self._here, message_id)
                        return Sent(message_id_text(message_id), recipient, "accepted")
                    except Temporary as error:
                        last = error
                        wait = error.retry_after.total_seconds() if error.retry_after else delay
                        await asyncio.sleep(wait)
                    except MailboxFull as error:
                        raise self._kept(error, message_id) from None
                    except AimessageError as error:
                        if outbox.abandon(self._here, message_id, error):
                            raise
                        raise self._kept(error, message_id) from None
        except TimeoutError:
            pass
        raise self._kept(last, message_id)

    async def users(self, *, everyone: bool = False) -> list[UserPresence]:
        """Return who is online, or everybody who is registered, by name."""
        found: list[UserPresence] = []
        after, more = "", True
        link = await self._connected()
        while more:
            start = after
            page = await link.request(lambda request_id: ListUsers(request_id, everyone, start), Users)  # noqa: B023
            found += [UserPresence(row.username, row.online) for row in page.rows]
            more = page.more and bool(page.rows)
            after = page.rows[-1].username if page.rows else ""
        return found

    async def listen(self, *, count: int | None = None, sender: str | None = None) -> AsyncGenerator[Message, None]:
        """Yield messages as they come, each after it is safe in the inbox, until *count* have been shown.

        A message counts as shown when the next one is asked for; before that, the next `listen` yields it again.

        With *sender*, only that agent's; the others wait for the next `listen`.
        Lost links are replaced. Raises Superseded: another machine of this identity receives now; NotAuthenticated.
        """
        shown = 0
        async with file_lock(self._here.profile.directory / "locks" / "subscriber"):
            wakeups: asyncio.Queue[AimessageError | None] = asyncio.Queue()
            receiver = asyncio.create_task(self._receive(wakeups))
            receiver.add_done_callback(lambda _: wakeups.put_nowait(None))
            try:
                while True:
                    for row, message in inbox.unshown(self._here, sender=sender):
                        yield message
                        # Only now: a consumer that failed or left meanwhile is shown this message again.
                        inbox.mark_shown(self._here, row)
                        shown += 1
                        if shown == count:
                            return
                    failure = await wakeups.get()
                    if failure is not None:
                        raise failure
                    if receiver.done():
                        receiver.result()  # it ends by a failure only; our own bug must not become silence
            finally:
                receiver.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await receiver

    async def _receive(self, wakeups: "asyncio.Queue[AimessageError | None]") -> None:
        progress = _Progress()
        while True:
            try:
                await self._receive_once(wakeups, progress)
            except AimessageError as error:
                # A relay of ours was here: what answers in its place meanwhile (a proxy without it) passes.
                passes = isinstance(error, Temporary) or (progress.met and isinstance(error, NotARelay))
                if not passes:
                    await wakeups.put(error)
                    return
                await asyncio.sleep(next(progress.delays))

    async def _receive_once(self, wakeups: "asyncio.Queue[AimessageError | None]", progress: "_Progress") -> None:
        """Subscribe, and take in what comes until the link is lost."""
        pushes: asyncio.Queue[RelayFrame] = asyncio.Queue(_PUSHES)
        link, proved = await log_in(self._here, pushes.put_nowait)
        progress.met = True
        try:
            await publish_prekeys(self._here, link, proved)
            with self._here.vault.transaction() as vault:
                vault_id, generation = vault.vault_id(), vault.counter("generation") + 1
                vault.save_counter("generation", generation)
            await link.request(lambda request_id: Subscribe(request_id, vault_id, generation), Subscribed)
            progress.delays = _Delays()  # a link that was good: the next loss starts with a short wait again
            while True:
                frame = await _next_push(pushes, link)
                if isinstance(frame, Deliver):
                    inbox.take_in(self._here, frame)
                    link.tell(Acknowledge(frame.subscription, [Ack(frame.position, frame.message_id)]))
                    if wakeups.empty():  # one is enough: whoever is woken looks for all
                        wakeups.put_nowait(None)
                elif isinstance(frame, PairsLow) and frame.left < PAIRS_LOW:
                    await stock_pairs(self._here, link, PAIRS_PER_STOCK - frame.left)
        finally:
            link.close()

    async def _connected(self) -> Link:
        async with self._linking:
            if self._link is None or self._link.lost.done():
                self._link, _ = await log_in(self._here, lambda _: None)
            return self._link

    async def _work_off(self, recipient: Username) -> None:
        link = await self._connected()
        for other in outbox.waiting_peers(self._here):
            if other != recipient:  # left by an earlier command; its troubles are not this message's
                with contextlib.suppress(AimessageError):
                    await outbox.work_off(self._here, link, other)
        await outbox.work_off(self._here, link, recipient)

    def _kept(self, error: AimessageError, message_id: MessageId) -> AimessageError:
        error.message_id = message_id_text(message_id)
        error.hint = f"the message {message_id_text(message_id)} is kept and goes out with this agent's next command"
        return error


async def _next_push(pushes: "asyncio.Queue[RelayFrame]", link: Link) -> RelayFrame:
    getter = asyncio.ensure_future(pushes.get())
    try:
        await asyncio.wait({getter, link.lost}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
        if getter.done():
            return getter.result()
        raise link.lost.result()
    finally:
        getter.cancel()


class _Delays:
    """Seconds between tries: doubling, bounded, with jitter so that a restarted relay is not stormed."""

    def __init__(self) -> None:
        self._ceiling = _FIRST_DELAY_SECONDS

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        delay = random.uniform(self._ceiling / 2, self._ceiling)  # noqa: S311 - not a secret
        self._ceiling = min(self._ceiling * 2, _LONGEST_DELAY_SECONDS)
        return delay


@dataclass(slots=True)
class _Progress:
    """How far receiving has come: whether the pinned relay has let us in, and how long to wait after a loss."""

    met: bool = False
    delays: _Delays = field(default_factory=_Delays)
