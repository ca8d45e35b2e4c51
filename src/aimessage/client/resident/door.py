"""The door of a resident agent: a Unix socket in the agent's directory, and how a command asks through it.

A command loads this and nothing else of the client, and it imports no more than the socket itself: `socket` takes
two thirds of what Python takes to start, a codec twice as long as sending the message. So its words are length-prefixed
octets.
"""

import os
import sys

try:
    import _socket as light
except ImportError:  # an interpreter that keeps it elsewhere
    import socket as light  # type: ignore[no-redef]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["DOOR", "FRAME_BYTES", "answers", "bound", "dialling_words", "is_ours", "packed", "unpacked"]

DOOR = "up.sock"
"""The socket's name in the agent's directory."""
FRAME_BYTES = 1 << 20
"""No frame is longer: a body has at most 64 KiB."""
_LENGTH = 4
_PATH_BYTES = 100  # the shortest limit of a system's socket paths is 104
_SOON_SECONDS = 5.0


def packed(words: "Mapping[str, bytes]") -> bytes:
    """Return one frame: its length, then every name and value behind its own, four octets each, big-endian."""
    parts = [part for name, value in words.items() for part in (name.encode(), value)]
    whole = b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)
    return len(whole).to_bytes(_LENGTH, "big") + whole


def unpacked(frame: bytes) -> dict[str, bytes]:
    """Return the words of one frame, which comes without its own length. Raises ValueError: it is none."""
    parts: list[bytes] = []
    at = 0
    while at < len(frame):
        end = at + _LENGTH + int.from_bytes(frame[at : at + _LENGTH], "big")
        if end > len(frame) or at + _LENGTH > len(frame):
            raise ValueError("a part ends behind its frame")
        parts.append(frame[at + _LENGTH : end])
        at = end
    if len(parts) % 2:
        raise ValueError("a name without a value")
    return {parts[at].decode(): parts[at + 1] for at in range(0, len(parts), 2)}


def answers(directory: str, words: "Mapping[str, bytes]", *, last_seconds: float) -> "Iterator[dict[str, bytes]]":
    """Say *words* to the resident of the agent in *directory*, and yield what it answers.

    The end comes when the resident closes, and just so when there is none, when it breaks off, says nothing for five
    seconds (for *last_seconds*, once it has answered), or belongs to another user: what is missing was not said.
    """
    connection = light.socket(light.AF_UNIX)
    connection.settimeout(_SOON_SECONDS)
    try:
        _at_door(directory, connection.connect)
        if not is_ours(connection):
            return
        connection.sendall(packed(words))
        while length := _read(connection, _LENGTH):
            size = int.from_bytes(length, "big")
            frame = _read(connection, size) if size <= FRAME_BYTES else b""
            if not frame:
                return
            yield unpacked(frame)
            connection.settimeout(last_seconds)
    except (OSError, ValueError):
        return
    finally:
        connection.close()


def is_ours(connection: "light.socket") -> bool:
    """Return whether the process at the other end runs under our own user, where the system can tell."""
    asked = getattr(light, "SO_PEERCRED", None)
    if asked is None:
        return True  # the directory and the socket are open to their owner alone
    uid = connection.getsockopt(light.SOL_SOCKET, asked, 12)[4:8]
    return int.from_bytes(uid, sys.byteorder) == os.geteuid()


def bound(directory: str) -> "socket.socket":
    """Return a listening socket at the door, open to our own user alone. The caller's duty: nobody else is there.

    Raises OSError.
    """
    import socket

    listening = socket.socket(socket.AF_UNIX)
    try:
        mask = os.umask(0o177)
        try:
            _at_door(directory, listening.bind)
        finally:
            os.umask(mask)
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


def dialling_words(environ: "Mapping[str, str]") -> bytes:
    """Return what the environment says of the way to a relay; a resident that was told otherwise is not asked."""
    first = [
        environ.get("AIMESSAGE_CA_FILE") and os.path.abspath(environ["AIMESSAGE_CA_FILE"]),  # noqa: PTH100 - see above
        *(environ.get(name) or environ.get(name.upper()) for name in ("https_proxy", "all_proxy", "no_proxy")),
        environ.get("http_proxy"),
    ]
    return "\n".join(each or "" for each in first).encode("utf-8", "surrogateescape")


def _read(connection: "light.socket", size: int) -> bytes:
    """Return *size* octets; none, if the connection ends before they are there."""
    octets = b""
    while len(octets) < size and (more := connection.recv(size - len(octets))):
        octets += more
    return octets if len(octets) == size else b""


def _at_door(directory: str, act: "Callable[[str], object]") -> None:
    """Bind or connect: from within *directory*, if its path is too long for a socket's."""
    path = os.path.join(directory, DOOR)  # noqa: PTH118 - see above
    if len(os.fsencode(path)) <= _PATH_BYTES:
        act(path)
        return
    back = os.open(".", os.O_RDONLY)
    try:
        os.chdir(directory)
        act(DOOR)
    finally:
        os.fchdir(back)
        os.close(back)
