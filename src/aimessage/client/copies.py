"""The relay's copies of what came on one link: which may go, and which are needed until a consumer has had its say."""

from collections.abc import Sequence

from aimessage.client import consumers
from aimessage.client.account import Here
from aimessage.wire.frames import Ack, Acknowledge, Deliver

__all__ = ["RelayCopies", "acknowledgements"]

_HELD = 250  # of a relay's window of 1 000 entries and 1 MiB
_HELD_BYTES = 256 << 10


class RelayCopies:
    """Built for one link; what is held is kept by position."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._held: dict[int, Deliver] = {}

    def over(self, deliveries: Sequence[Deliver], may_go: Sequence[bool]) -> list[Deliver]:
        """Return those of *deliveries*, which have been taken in, whose copies go now; the others are held."""
        pairs = list(zip(deliveries, may_go, strict=True))
        over = [each for each, may in pairs if may]
        kept = [each for each, may in pairs if not may]
        asked = consumers.asked_among(self._here, {_key(each) for each in kept}) if kept else set()
        for each in kept:
            if _key(each) in asked and not self._has_room(each):
                over.append(each)  # the vault has it, and it is asked for: the relay's copy is only a second chance
            else:
                self._held[each.position] = each
        return over

    def settled(self) -> list[Deliver]:
        """Return, once, those of the held ones that nobody needs any more."""
        if not self._held:
            return []
        settled = consumers.settled_among(self._here, {_key(each) for each in self._held.values()})
        over = [self._held.pop(each.position) for each in list(self._held.values()) if _key(each) in settled]
        consumers.forget_held(self._here, settled)
        return over

    def _has_room(self, delivery: Deliver) -> bool:
        """Return whether one more held copy leaves most of the relay's window to other mail."""
        held = sum(len(each.sealed) for each in self._held.values())
        return len(self._held) < _HELD and held + len(delivery.sealed) <= _HELD_BYTES


def acknowledgements(deliveries: Sequence[Deliver]) -> list[Acknowledge]:
    """Return the frames that let the relay's copies of *deliveries* go: one a subscription."""
    entries: dict[int, list[Ack]] = {}
    for each in deliveries:
        entries.setdefault(each.subscription, []).append(Ack(each.position, each.message_id))
    return [Acknowledge(subscription, acks) for subscription, acks in entries.items()]


def _key(delivery: Deliver) -> tuple[str, bytes]:
    return delivery.sender, delivery.message_id
