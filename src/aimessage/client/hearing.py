"""The order of each sender's messages during one commit: looked up once, written once. The rules: `order`."""

from aimessage.client import shelf
from aimessage.client.account import Here
from aimessage.client.order import Heard, Place
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body
from aimessage.types import Username

__all__ = ["Hearing"]

_MOST_EARLY = 10_000
"""Messages of one sender that wait for what was sent before them: what it costs to let them through is bounded."""


class Hearing:
    """What one transaction has heard of every sender's vaults."""

    def __init__(self, here: Here, vault: Transaction, now_ms: int) -> None:
        self._here = here
        self._vault = vault
        self._now_ms = now_ms
        self._heard: dict[tuple[Username, bytes], Heard] = {}
        self._has_held: dict[Username, bool] = {}
        self._early: dict[Username, int] = {}

    def place(self, sender: Username, body: Body) -> Place:
        """Return where a message of *sender* stands. One that is early will be held: the caller's duty."""
        key = sender, body.vault_id
        if key not in self._heard:
            self._heard[key] = self._known(sender, body.vault_id) or Heard(body.vault_id, self._first(sender, body))
        place = self._heard[key].place(body.sequence)
        if place is Place.EARLY:
            self._has_held[sender] = True
        return place

    def follow(self, sender: Username, body: Body) -> bool:
        """This message, the next one, is let through, and so is what waited for it; return whether anything did."""
        key = sender, body.vault_id
        following = self._heard[key].after(body.sequence)
        if sender not in self._has_held:
            self._has_held[sender] = shelf.has_held(self._vault, sender)
        if self._has_held[sender]:
            self._heard[key] = shelf.release_following(self._here, self._vault, sender, following)
            if sender in self._early:
                self._early[sender] -= self._heard[key].next - following.next
        else:
            self._heard[key] = following
        return self._heard[key] is not following

    def is_patient_no_more(self, sender: Username) -> bool:
        """One more message of *sender* is held; if that are too many, all of them are let through: return whether."""
        if sender not in self._early:
            self._early[sender] = shelf.count_held(self._vault, sender)
        else:
            self._early[sender] += 1
        if self._early[sender] <= _MOST_EARLY:
            return False
        self.save()
        shelf.release_early(self._here, self._vault, sender)
        self._heard = {key: heard for key, heard in self._heard.items() if key[0] != sender}
        del self._early[sender], self._has_held[sender]
        return True

    def pass_over(self, sender: Username, body: Body) -> None:
        """Count a message that is not kept: should we hear this peer again, what we refused is no gap."""
        key = sender, body.vault_id
        heard = self._heard.get(key) or self._known(sender, body.vault_id) or Heard(body.vault_id, 1)
        self._heard[key] = heard.after(body.sequence)

    def save(self) -> None:
        """Write what has been heard."""
        for (sender, _), heard in self._heard.items():
            shelf.save_heard(self._vault, sender, heard, self._now_ms)

    def _known(self, sender: Username, vault_id: bytes) -> Heard | None:
        return shelf.heard_of(self._vault, sender, vault_id)

    def _first(self, sender: Username, body: Body) -> int:
        # A restored vault has forgotten what came before: it cannot tell a gap from its own loss.
        met_now = any(name == sender for name, _ in self._heard)
        forgetful = self._vault.counter("restored") and not met_now and not shelf.has_heard(self._vault, sender)
        return body.sequence if forgetful else 1
