"""Invitations: what a registration with one changes, name and use, is one atomic batch."""

import asyncio
from dataclasses import replace

import msgspec

from aimessage.errors import StoreDamaged
from aimessage.stores.invitations import KEPT, TOO_MANY, is_over, usable
from aimessage.stores.jetstream.accounts import contended
from aimessage.stores.jetstream.directory import JetStreamDirectory
from aimessage.stores.jetstream.layout import record
from aimessage.stores.jetstream.records import Change, Record, Records
from aimessage.stores.ports import Invite, Refusal, Registered

__all__ = ["JetStreamInvites"]

_TRIES = 50
_READS_AT_ONCE = 64


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    label: str
    made_at: int
    expires_at: int
    uses: int
    used: int


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Kept)


def _dump(invite: Invite) -> bytes:
    return _encode(_Kept(invite.label, invite.made_at, invite.expires_at, invite.uses, invite.used))


def _load(digest: bytes, octets: bytes) -> Invite:
    try:
        kept = _decoder.decode(octets)
    except msgspec.MsgspecError:
        raise StoreDamaged("an invitation does not decode") from None
    return Invite(digest, kept.label, kept.made_at, kept.expires_at, kept.uses, kept.used)


class JetStreamInvites:
    """`ports.Invites`; registers in *directory*."""

    def __init__(self, records: Records, directory: JetStreamDirectory) -> None:
        self._records = records
        self._directory = directory
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)

    async def add(self, invite: Invite, *, now_ms: int) -> Refusal | None:
        """Keep a new invitation; two relays that add at once may go one over the bound. Raises RelayUnavailable."""
        if len(await self._records.names(record("invite", "*"))) >= KEPT:
            over = [old for old in await self.all() if is_over(old, now_ms)]
            if not over:
                return TOO_MANY
            for old in over:
                await self.revoke(old.digest)
        await self._records.write(record("invite", invite.digest.hex()), _dump(invite))
        return None

    async def register(self, account: Registered, digest: bytes, *, now_ms: int) -> Registered | Refusal:
        """Claim a username by invitation, both at once or neither. Raises RelayUnavailable."""
        subject = record("invite", digest.hex())
        for _ in range(_TRIES):
            there = await self._directory.find(account.username)
            if there is not None and there.signing_key == account.signing_key:
                return there
            kept = await self._records.get(subject)
            invite = usable(_load(digest, kept.data) if kept.revision else None, now_ms)
            if isinstance(invite, Refusal):
                return invite
            if there is not None:
                return there
            used = Change(subject, _dump(replace(invite, used=invite.used + 1)), kept.revision)
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
        return [_load(bytes.fromhex(it.rpartition(".")[2]), kept.data) for it, kept in pairs if kept.revision]

    async def _read(self, subject: str) -> Record:
        async with self._reads:
            return await self._records.get(subject)
