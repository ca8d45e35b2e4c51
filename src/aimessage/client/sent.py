"""The outcome of one send, and how to wait for what becomes of the message."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from aimessage.client.fates import FATES
from aimessage.e2ee.bodies import Receipts
from aimessage.errors import BadValue, NoIdentity

__all__ = ["Sent", "wanted_receipts"]


class _Awaiter(Protocol):
    async def until(self, sent: "Sent", fate: str, *, timeout: timedelta | float) -> "Sent":  # noqa: ASYNC109 - a wait
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of one send; *state* is its fate when `send` returned: accepted is on the relay's disk."""

    id: str
    to: str
    state: str
    agent: _Awaiter | None = field(default=None, repr=False, compare=False)

    async def delivered(self, timeout: timedelta | float = 30) -> "Sent":  # noqa: ASYNC109 - the message goes on
        """Return once the recipient's program has it on disk. Raises what `Agent.until` does."""
        return await self._until("delivered", timeout)

    async def read(self, timeout: timedelta | float = 30) -> "Sent":  # noqa: ASYNC109 - the message goes on
        """Return once a consumer has been shown it; ask for it when sending. Raises what `Agent.until` does."""
        return await self._until("read", timeout)

    async def handled(self, timeout: timedelta | float = 30) -> "Sent":  # noqa: ASYNC109 - the message goes on
        """Return once a consumer has acknowledged it; ask for it when sending. Raises what `Agent.until` does."""
        return await self._until("handled", timeout)

    async def _until(self, fate: str, limit: timedelta | float) -> "Sent":
        if self.agent is None:
            raise NoIdentity("this outcome is not in an agent's hands")
        return await self.agent.until(self, fate, timeout=limit)


def wanted_receipts(wait_for: str) -> Receipts:
    """Return what we ask the recipient to report, to see the fate *wait_for*. Raises BadValue: it is none."""
    if wait_for not in FATES or wait_for == "waiting":
        raise BadValue("this is no fate to wait for", hint="use accepted, delivered, read or handled")
    if wait_for == "accepted":
        return Receipts.DELIVERED
    wanted = {"read": Receipts.READ, "handled": Receipts.READ | Receipts.HANDLED}.get(wait_for, Receipts.NONE)
    return Receipts.DELIVERED | wanted | Receipts.SOON
