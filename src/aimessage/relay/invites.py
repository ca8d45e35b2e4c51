"""Invitation codes: made here, told once, known by a digest ever after; and what an operator asks about them."""

import hashlib
from base64 import b32encode
from collections.abc import Mapping
from contextlib import AsyncExitStack

from aimessage.clock import Clock, milliseconds
from aimessage.crypto.random import Entropy
from aimessage.errors import BadValue, NotFound, OverLimit
from aimessage.relay.admin import Handler
from aimessage.stores.invitations import is_over
from aimessage.stores.ports import Invite, Invites, Refusal

__all__ = ["LABEL_CHARACTERS", "USES_AT_MOST", "digest_of", "invite_requests"]

USES_AT_MOST = 1_000_000
LABEL_CHARACTERS = 64
_PREFIX = "aimi1-"
_CODE_BYTES = 20  # 160 bits: a digest of so much chance needs no salt and no slow hash
_ID_CHARACTERS = 12
_LONGEST_MS = 10 * 365 * 86_400_000


def digest_of(code: str) -> bytes:
    """Return what a store knows an invitation by; case and surrounding space do not count."""
    return hashlib.sha256(code.strip().lower().encode()).digest()


def invite_requests(invites: Invites, registration: str, clock: Clock, entropy: Entropy) -> dict[str, Handler]:
    """Return what an operator may ask about invitations; *registration* is what the relay runs with."""
    office = _Office(invites, registration, clock, entropy)
    return {"invite": office.create, "invites": office.everyone, "revoke": office.revoke}


class _Office:
    def __init__(self, invites: Invites, registration: str, clock: Clock, entropy: Entropy) -> None:
        self._invites = invites
        self._registration = registration
        self._clock = clock
        self._entropy = entropy

    async def create(self, request: Mapping[str, object], _: AsyncExitStack) -> Mapping[str, object]:
        """`label`, `uses`, `ttl_ms` (0: for ever): a new one, with its code. Raises BadValue, OverLimit."""
        label, uses, ttl_ms = str(request.get("label", "")), request.get("uses", 1), request.get("ttl_ms", 0)
        if len(label) > LABEL_CHARACTERS or not label.isprintable():
            raise BadValue(f"a label has at most {LABEL_CHARACTERS} printable characters")
        if not isinstance(uses, int) or not 1 <= uses <= USES_AT_MOST:
            raise BadValue(f"an invitation is good for 1 to {USES_AT_MOST} registrations")
        if not isinstance(ttl_ms, int) or not 0 <= ttl_ms <= _LONGEST_MS:
            raise BadValue("an invitation lives for at most ten years, or with 0 for ever")
        now_ms = milliseconds(self._clock.now())
        code = _PREFIX + b32encode(self._entropy(_CODE_BYTES)).decode().lower()
        invite = Invite(digest_of(code), label, now_ms, now_ms + ttl_ms if ttl_ms else 0, uses)
        refusal = await self._invites.add(invite, now_ms=now_ms)
        if isinstance(refusal, Refusal):
            raise OverLimit(refusal.message, hint="revoke some: aimessage-server invite list")
        return {**self._row(invite), "code": code, "registration": self._registration}

    async def everyone(self, _: Mapping[str, object], __: AsyncExitStack) -> Mapping[str, object]:
        """Every invitation that is kept, the oldest first; no code, which nobody knows any more."""
        kept = sorted(await self._invites.all(), key=lambda invite: invite.made_at)
        return {"invites": [self._row(invite) for invite in kept]}

    async def revoke(self, request: Mapping[str, object], _: AsyncExitStack) -> Mapping[str, object]:
        """`id`: delete this invitation. Raises NotFound."""
        wanted = str(request.get("id")).strip().lower()
        for invite in await self._invites.all():
            if _id_of(invite) == wanted and await self._invites.revoke(invite.digest):
                return self._row(invite)
        raise NotFound("there is no such invitation", hint="aimessage-server invite list")

    def _row(self, invite: Invite) -> Mapping[str, object]:
        return {
            "id": _id_of(invite),
            "label": invite.label,
            "uses": invite.uses,
            "used": invite.used,
            "made_at": invite.made_at,
            "expires_at": invite.expires_at or None,
            "over": is_over(invite, milliseconds(self._clock.now())),
        }


def _id_of(invite: Invite) -> str:
    return invite.digest.hex()[:_ID_CHARACTERS]
