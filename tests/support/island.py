"""Two agents and a relay that is a list: real vaults, real cryptography, and a network that does what a test says."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aimessage.client import control, outbox
from aimessage.client.account import Here
from aimessage.client.consumers import Filter, claim, mark_shown
from aimessage.client.fates import expire
from aimessage.client.inbox import take_in
from aimessage.client.letter import Letter
from aimessage.client.locks import Living
from aimessage.client.message import Message
from aimessage.client.prekeys import new_bundle, next_epoch
from aimessage.client.profile import Profile, make_directory
from aimessage.client.vault import Vault
from aimessage.crypto.random import system_entropy
from aimessage.e2ee.bodies import BODY_BYTES
from aimessage.e2ee.identity import Token, open_account
from aimessage.errors import AimessageError, LinkLost
from aimessage.types import Address, MessageId, RelayId, SecretBytes, Username
from aimessage.wire.bundles import Bundle
from aimessage.wire.frames import Accepted, BundleAnswer, Deliver, FetchBundle, Post

RELAY_ID = RelayId(b"an island relay.")


@dataclass
class IslandClock:
    """A clock that a test sets."""

    moment: datetime = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the moment."""
        return self.moment

    def monotonic(self) -> float:
        """Return the moment, as seconds."""
        return self.moment.timestamp()

    def pass_by(self, delay: timedelta) -> None:
        """Let time pass."""
        self.moment += delay


@dataclass
class Islander:
    """One agent: its machine can lose its memory."""

    name: str
    root: Path
    island: "Island"
    token: Token = field(init=False)
    lives: int = 0
    shown: list[Message] = field(default_factory=list)
    forgotten: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.token = Token(SecretBytes(system_entropy(32)))
        self.here = self._arrive()

    def _arrive(self) -> Here:
        address = Address(RELAY_ID, Username(self.name))
        directory = self.root / f"{self.name}-{self.lives}"
        make_directory(directory)
        profile = Profile(self.name, address.username, "ws://localhost:1", RELAY_ID, directory)
        account = open_account(self.token, address)
        vault = Vault(profile.vault_path, account.vault_key)
        here = Here(profile, account, vault, self.island.clock, system_entropy, Living(directory))
        if self.lives:
            with here.vault.transaction() as transaction:
                transaction.save_counter("restored", 1)
                known = Bundle.parse(self.island.bundles[self.name]).epoch
                transaction.save_counter("epoch", next_epoch(here, transaction, known))
        self.island.bundles[self.name] = new_bundle(here).encode()
        return here

    def lose_vault(self) -> None:
        """Start again from the token alone; what the vault had taken in is `forgotten`."""
        with self.here.vault.transaction() as vault:
            self.forgotten |= {message_id for (message_id,) in vault.run("SELECT id FROM seen")}
        self.here.close()
        self.lives += 1
        self.here = self._arrive()

    def crash(self) -> None:
        """End the process and start another on the same disk."""
        here = self.here
        here.close()
        vault = Vault(here.profile.vault_path, here.account.vault_key)
        self.here = Here(here.profile, here.account, vault, here.clock, here.entropy, Living(here.profile.directory))

    def save(self, to: str, text: str) -> MessageId:
        """Commit a message; nothing leaves."""
        message_id = outbox.save(self.here, Username(to), Letter(text))
        outbox.let_go(self.here, [message_id])
        return message_id

    def flush(self, lost_at: int | None = None, *, lost_after: bool = False) -> None:
        """Send what is owed and what waits; the link is lost at a request, before or after the relay has heard it."""

        async def flush() -> None:
            link = IslandLink(self.island, self.name, lost_at, lost_after=lost_after)
            await control.flush(self.here, link)  # type: ignore[arg-type]  # the two things of a Link that it uses

        asyncio.run(flush())

    def receive(self, deliveries: list[Deliver]) -> list[Deliver]:
        """Take deliveries in; return those whose relay copies may go."""
        done = take_in(self.here, deliveries)
        return [each for each, may_go in zip(deliveries, done, strict=True) if may_go]

    def read(self) -> None:
        """Show what is there to a consumer."""
        batch = claim(self.here, Filter(), 1000)
        mark_shown(self.here, [row for row, _ in batch])
        self.shown += [message for _, message in batch]

    def look_at_the_clock(self) -> None:
        """Declare expired what is."""
        expire(self.here, self.here.now_ms)

    def fate(self, message_id: MessageId) -> str | None:
        """Return a message's fate; None if this vault never sent it."""
        with self.here.vault.transaction() as vault:
            row = vault.run("SELECT fate FROM sent WHERE id = ?", (message_id,)).fetchone()
        return row[0] if row else None


@dataclass
class Island:
    """The relay: a bundle and a list a name."""

    clock: IslandClock = field(default_factory=IslandClock)
    bundles: dict[str, bytes] = field(default_factory=dict)
    mailboxes: dict[str, list[Deliver]] = field(default_factory=dict)
    positions: int = 0
    judge: Callable[[Post], AimessageError | None] = lambda post: None
    """Why the relay refuses a post, if it does."""

    def post(self, sender: str, post: Post) -> None:
        """Store a message once per (sender, id, attempt)."""
        mailbox = self.mailboxes.setdefault(post.to, [])
        key = (sender, post.message_id, post.attempt)
        if any((each.sender, each.message_id, each.attempt) == key for each in mailbox):
            return
        self.positions += 1
        mailbox.append(
            Deliver(1, self.positions, sender, post.message_id, post.attempt, post.mail_class, 0, 0, post.sealed)
        )


class IslandLink:
    """What a Link is to the outbox."""

    def __init__(self, island: Island, name: str, lost_at: int | None, *, lost_after: bool) -> None:
        self._island = island
        self._name = name
        self._left = lost_at
        self._lost_after = lost_after
        self.lost: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent on it any more."""
        return self.lost.done()

    async def request(self, build: Callable[[int], Any], _: type[Any]) -> Any:  # noqa: ANN401 - as the wire's union
        """Answer one request, or lose the link over it."""
        frame = build(1)
        dying = self._left == 0
        if self._left is not None:
            self._left -= 1
        if self.lost.done() or (dying and not self._lost_after):
            self._lose()
        answer: object
        if isinstance(frame, FetchBundle):
            answer = BundleAnswer(1, self._island.bundles[frame.username])
        else:
            assert isinstance(frame, Post)
            if refusal := self._island.judge(frame):
                raise refusal
            self._island.post(self._name, frame)
            day = int(timedelta(days=30).total_seconds() * 1000)
            answer = Accepted(1, 0, int(self._island.clock.monotonic() * 1000) + day)
        if dying:
            self._lose()
        return answer

    async def bundle(self, recipient: Username) -> BundleAnswer:
        """Look somebody up."""
        found = await self.request(lambda request_id: FetchBundle(request_id, recipient), BundleAnswer)
        assert isinstance(found, BundleAnswer)
        return found

    @property
    def body_bytes(self) -> int:
        """As every relay of ours, unless it was told otherwise."""
        return BODY_BYTES

    def room(self, *, receipts: bool = False) -> int:
        """Several at once, so that a lot can be lost in its middle."""
        return 3

    async def request_all(
        self,
        builds: Sequence[Callable[[int], Any]],
        answer: type[Any],
    ) -> list[Any]:
        """Answer one after the other; what follows a loss is lost."""
        results: list[object] = []
        for build in builds:
            try:
                results.append(await self.request(build, answer))
            except AimessageError as error:
                results.append(error)
        return results

    def _lose(self) -> None:
        error = LinkLost("the connection to the relay broke")
        if not self.lost.done():
            self.lost.set_result(error)
        raise error
