"""What is the same for invitations in every store: when one is over, and what is said of one that cannot be used."""

from aimessage.errors import InviteRefused, OverLimit
from aimessage.stores.ports import Invite, Refusal

__all__ = ["KEPT", "TOO_MANY", "is_over", "usable"]

KEPT = 1_000
"""How many invitations a store keeps; above that those that are over make room."""

TOO_MANY = Refusal(OverLimit.code, f"there are {KEPT} invitations already")


def is_over(invite: Invite, now_ms: int) -> bool:
    """Return whether nobody can register with *invite* any more."""
    return invite.used >= invite.uses or 0 < invite.expires_at <= now_ms


def usable(invite: Invite | None, now_ms: int) -> Invite | Refusal:
    """Return *invite*, or why nobody registers with it, which only who holds its code is ever told."""
    if invite is None:
        return Refusal(InviteRefused.code, "the relay does not know this invitation")
    if is_over(invite, now_ms):
        why = "is used up" if invite.used >= invite.uses else "has expired"
        return Refusal(InviteRefused.code, f"this invitation {why}")
    return invite
