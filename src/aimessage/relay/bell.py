"""A bell that one task listens for: what `asyncio.Event` does for one waiter, in a sixth of its memory.

Each link has two, and ten thousand links have them for weeks.
"""

import asyncio

__all__ = ["Bell"]


class Bell:
    """Rung by anybody, heard by one; it stays rung until it is muffled."""

    __slots__ = ("_is_rung", "_listener")

    def __init__(self) -> None:
        self._is_rung = False
        self._listener: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the one who listens, now or when it comes to listen."""
        self._is_rung = True
        if self._listener is not None and not self._listener.done():
            self._listener.set_result(None)

    def muffle(self) -> None:
        """Whatever was rung for has been seen to."""
        self._is_rung = False

    async def heard(self) -> None:
        """Return once it is rung; at once if it is."""
        while not self._is_rung:
            self._listener = asyncio.get_running_loop().create_future()
            try:
                await self._listener
            finally:
                self._listener = None
