"""The relay's own TLS: version 1.2 or later, and certificates that can be replaced while it runs.

The listening context never changes. In each handshake it hands over to the newest one that was loaded whole, so that
a renewal that fails in the middle leaves everything as it was, and open connections never notice.
"""

import ssl
from pathlib import Path

from aimessage.errors import ConfigInvalid

__all__ = ["Tls", "load_tls"]

_START_BYTES = 4096
_HINT = "give the certificate with its chain to --tls-cert and its key to --tls-key, both as PEM"


def load_tls(certificate: Path | None, key: Path | None) -> "Tls | None":
    """Return what to serve TLS with, None if neither file is configured.

    Raises ConfigInvalid: one file without the other, or a pair that cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing, given = ("--tls-key", "--tls-cert") if key is None else ("--tls-cert", "--tls-key")
        raise ConfigInvalid(f"{given} needs {missing} beside it", hint=_HINT)
    return Tls(certificate, key)


class Tls:
    """The files and what was last read from them; *context* is for the listening socket."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._newest = _loaded(certificate, key)
        self.context = _loaded(certificate, key)
        self.context.sni_callback = self._hand_over

    def reload(self) -> None:
        """Read the files again, for the handshakes to come. Raises ConfigInvalid: the old ones stay in use."""
        self._newest = _loaded(self._certificate, self._key)

    def _hand_over(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL, in each handshake, whether it names a host or not."""
        handshake.context = self._newest


def _loaded(certificate: Path, key: Path) -> ssl.SSLContext:
    _start_of(certificate, "--tls-cert")
    locked = b"ENCRYPTED" in _start_of(key, "--tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=b"")  # without one, OpenSSL would ask the terminal
    except ssl.SSLError as error:
        raise ConfigInvalid(f"{certificate} and {key}: {_sentence(error, locked=locked)}", hint=_HINT) from None
    except OSError as error:
        raise ConfigInvalid(f"{certificate} or {key} cannot be read: {error.strerror}", hint=_HINT) from None
    return context


def _start_of(path: Path, flag: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_START_BYTES)
    except OSError as error:
        raise ConfigInvalid(f"{flag}: {path} cannot be read: {error.strerror}", hint=_HINT) from None


def _sentence(error: ssl.SSLError, *, locked: bool) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return "the key is not the certificate's"
    if locked:
        return "the key is encrypted, and a relay starts without anybody to ask"
    return "they are not a PEM certificate and its key"
