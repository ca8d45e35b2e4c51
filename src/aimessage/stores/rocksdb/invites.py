"""Invitations: what a registration with one changes, name and use, is one commit."""

import asyncio
from collections.abc import Iterable

from msgspec.structs import replace

from aimessage.stores.invitations import KEPT, TOO_MANY, is_over, usable
from aimessage.stores.ports import Invite, Refusal, Registered
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.directory import claim_name, standing_account
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Batch, Writer
from aimessage.stores.shapes import dump_invite, load_invite

__all__ = ["RocksInvites"]

_PREFIX = keys.invite(b"")
_END = keys.after_prefix(_PREFIX)


def _load_all(found: Iterable[tuple[bytes, bytes]]) -> list[Invite]:
    return [load_invite(key.removeprefix(_PREFIX), octets) for key, octets in found]


class RocksInvites:
    """`ports.Invites` on RocksDB."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def add(self, invite: Invite, *, now_ms: int) -> Refusal | None:
        """Keep a new invitation. Raises RelayUnavailable."""

        def keep(batch: Batch) -> Refusal | None:
            there = _load_all(batch.scan(_PREFIX, _END))
            if len(there) >= KEPT:
                over = [old for old in there if is_over(old, now_ms)]
                if not over:
                    return TOO_MANY
                for old in over:
                    batch.delete(keys.invite(old.digest))
            batch.put(keys.invite(invite.digest), dump_invite(invite))
            return None

        return await self._writer.run(keep, grows=True)

    async def register(self, account: Registered, digest: bytes, *, now_ms: int) -> Registered | Refusal:
        """Claim a username by invitation, in one commit. Raises RelayUnavailable."""

        def claim(batch: Batch) -> Registered | Refusal:
            there = standing_account(batch, account.username)
            if there is not None and there.signing_key == account.signing_key:
                return there
            octets = batch.get(keys.invite(digest))
            invite = usable(None if octets is None else load_invite(digest, octets), now_ms)
            if isinstance(invite, Refusal):
                return invite
            if there is None:
                batch.put(keys.invite(digest), dump_invite(replace(invite, used=invite.used + 1)))
            return claim_name(batch, account)

        return await self._writer.run(claim, grows=True)

    async def revoke(self, digest: bytes) -> bool:
        """Delete an invitation, also while the disk is nearly full; return whether it was there."""

        def delete(batch: Batch) -> bool:
            known = batch.get(keys.invite(digest)) is not None
            batch.delete(keys.invite(digest))
            return known

        return await self._writer.run(delete, grows=False)

    async def all(self) -> list[Invite]:
        """Return every invitation that is kept, in the order of the digests. Raises StoreDamaged."""
        return await asyncio.to_thread(lambda: _load_all(self._engine.scan(_PREFIX, _END)))
