"""What RFC 6455 asks of incoming frames and picows does not check: RSV bits, continuations, sizes; and reassembly."""

from dataclasses import dataclass

__all__ = ["Assembler", "Breach"]


@dataclass(frozen=True, slots=True)
class Breach:
    """The peer broke the WebSocket protocol: close with *code*."""

    code: int
    reason: str


class Assembler:
    """Makes whole binary messages of at most *bound* bytes out of data frames."""

    __slots__ = ("_bound", "_parts")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._parts: bytearray | None = None

    def data(self, payload: bytes, *, continuation: bool, text: bool, fin: bool) -> bytes | Breach | None:
        """Take one data frame; return the message that it completes, if any, or what is wrong with it."""
        breach = self._breach(len(payload), continuation=continuation, text=text)
        if breach is not None:
            self.forget()
            return breach
        if self._parts is None:
            if fin:
                return payload
            self._parts = bytearray()
        self._parts += payload  # in place: a sum would copy all that came before once more for each fragment
        if not fin:
            return None
        whole, self._parts = bytes(self._parts), None
        return whole

    def forget(self) -> None:
        """Drop what has come of a message; no more of it will be asked for."""
        self._parts = None

    def _breach(self, size: int, *, continuation: bool, text: bool) -> Breach | None:
        if continuation and self._parts is None:
            return Breach(1002, "a continuation of nothing")
        if not continuation and self._parts is not None:
            return Breach(1002, "a new message inside a fragmented one")
        if text:
            return Breach(1003, "messages are binary")
        if size + len(self._parts or b"") > self._bound:
            return Breach(1009, "the message is larger than announced")
        return None
