"""Invitations: what a registration with one changes, name and use, is one atomic batch."""

import asyncio

from msgspec.structs import replace

from aimessage.stores.invitations import KEPT, TOO_MANY, is_over, usable
from aimessage.stores.jetstream.accounts import contended
from aimessage.stores.jetstream.directory import JetStreamDirectory
from aimessage.stores.jetstream.layout import record
from aimessage.stores.jetstream.records import Change, Record, Records
from aimessage.stores.ports import Invite, Refusal, Registered
from aimessage.stores.shapes import dump_invite, load_invite

__all__ = ["JetStreamInvites"]

_TRIES = 50
_READS_AT_ONCE = 64


class JetStreamInvites:
    """`ports.Invites`; registers in *directory*."""

    def __init__(self, records: Records, directory: JetStreamDirectory) -> None:
        self._records = records
        self._directory = directory
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._adding = asyncio.Lock()

    async def add(self, invite: Invite, *, now_ms: int) -> Refusal | None:
        """Keep a new invitation; two relays that add at once may go one over the bound. Raises RelayUnavailable."""
        async with self._adding:
            if len(await self._records.names(record("invite", "*"))) >= KEPT:
                over = [old for old in await self.all() if is_over(old, now_ms)]
                if not over:
                    return TOO_MANY
                for old in over:
                    await self.revoke(old.digest)
            await self._records.write(record("invite", invite.digest.hex()), dump_invite(invite))
            return None

    async def register(self, account: Registered, digest: bytes, *, now_ms: int) -> Registered | Refusal:
        """Claim a username by invitation, both at once or neither. Raises RelayUnavailable."""
        subject = record("invite", digest.hex())
        for _ in range(_TRIES):
            there = await self._directory.find(account.username)
            if there is not None and there.signing_key == account.signing_key:
                return there
            kept = await self._records.get(subject)
            invite = usable(load_invite(digest, kept.data) if kept.revision else None, now_ms)
            if isinstance(invite, Refusal):
                return invite
            if there is not None:
                return there
            used = Change(subject, dump_invite(replace(invite, used=invite.used + 1)), kept.revision)
            if await self._directory.claim(account, used):
                return account
        raise contended()

    async def revoke(self, digest: bytes) -> bool:
        """Delete an invitation; return whether it was there. Raises RelayUnavailable."""
        subject = record("invite", digest.hex())
        for _ in range(_TRIES):
            kept = await self._records.get(subject)
            if not kept.revision:
                return False
            if await self._records.delete(kept):
                return True  # else somebody registered with it meanwhile, and it stands there anew
        raise contended()

    async def all(self) -> list[Invite]:
        """Return every invitation that is kept, in the order of the digests. Raises StoreDamaged, RelayUnavailable."""
        subjects = sorted(await self._records.names(record("invite", "*")))
        found = await asyncio.gather(*map(self._read, subjects))
        pairs = zip(subjects, found, strict=True)
        return [load_invite(bytes.fromhex(it.rpartition(".")[2]), kept.data) for it, kept in pairs if kept.revision]

    async def _read(self, subject: str) -> Record:
        async with self._reads:
            return await self._records.get(subject)
