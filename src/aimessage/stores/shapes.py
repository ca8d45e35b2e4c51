"""What a durable store keeps of an account and of an invitation, as bytes: the same for every engine.

Spec: docs/spec/storage.md §1.
"""

import msgspec

from aimessage.errors import StoreDamaged
from aimessage.stores.ports import Invite, Registered
from aimessage.types import Username, VaultId

__all__ = ["dump_account", "dump_invite", "load_account", "load_invite"]


class _Account(msgspec.Struct, frozen=True, array_like=True, gc=False):
    signing_key: bytes
    bundle: bytes
    vault_id: bytes
    epoch: int
    registered_at: int


class _Invite(msgspec.Struct, frozen=True, array_like=True, gc=False):
    label: str
    made_at: int
    expires_at: int
    uses: int
    used: int


_encode = msgspec.msgpack.Encoder().encode
_accounts = msgspec.msgpack.Decoder(_Account)
_invites = msgspec.msgpack.Decoder(_Invite)


def dump_account(account: Registered) -> bytes:
    """Return an account as it is kept under its name."""
    vault_id, epoch = account.vault_id, account.epoch
    return _encode(_Account(account.signing_key, account.bundle, vault_id, epoch, account.registered_at))


def load_account(username: Username, octets: bytes) -> Registered:
    """Return the account as it is kept. Raises StoreDamaged."""
    try:
        kept = _accounts.decode(octets)
    except msgspec.MsgspecError:
        raise StoreDamaged(f"the account of {username} does not decode") from None
    return Registered(username, kept.signing_key, kept.bundle, VaultId(kept.vault_id), kept.epoch, kept.registered_at)


def dump_invite(invite: Invite) -> bytes:
    """Return an invitation as it is kept under its digest."""
    return _encode(_Invite(invite.label, invite.made_at, invite.expires_at, invite.uses, invite.used))


def load_invite(digest: bytes, octets: bytes) -> Invite:
    """Return the invitation as it is kept under *digest*. Raises StoreDamaged."""
    try:
        kept = _invites.decode(octets)
    except msgspec.MsgspecError:
        raise StoreDamaged("an invitation does not decode") from None
    return Invite(digest, kept.label, kept.made_at, kept.expires_at, kept.uses, kept.used)
