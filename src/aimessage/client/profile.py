"""An agent's directory: who it is, where its relay is, its token. Directories 0700, files 0600, whole or not at all."""

import os
from pathlib import Path

import msgspec

from aimessage.client.config import Settings, normal_server
from aimessage.client.dialling import Dialling
from aimessage.crypto.random import system_entropy
from aimessage.e2ee.identity import Token, lock_token, parse_token, unlock_token
from aimessage.errors import InvalidInput, NoIdentity, PassphraseWrong, VaultDamaged, VaultNewer
from aimessage.types import RelayId, SecretBytes, Username, parse_username

__all__ = ["Profile", "load_profile", "load_token", "make_directory", "save_profile", "save_token", "write_private"]

_FORMAT = 1
_LOCKED = b"aim1-locked\n"


class Profile(msgspec.Struct, frozen=True):
    """What is known of this agent without its token."""

    agent: str
    username: Username
    server: str
    relay_id: RelayId
    directory: Path
    dialling: Dialling = msgspec.field(default_factory=Dialling)
    is_new: bool = False
    """Whether this very call made it."""

    @property
    def token_path(self) -> Path:
        """Where the token lies."""
        return self.directory / "token"

    @property
    def vault_path(self) -> Path:
        """Where everything else lies, sealed."""
        return self.directory / "vault.db"


def make_directory(directory: Path) -> None:
    """Make *directory* and its parents, each new one 0700 whatever the umask."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        each.chmod(0o700)


def write_private(path: Path, content: bytes) -> None:
    """Replace *path* by *content*, 0600 and on disk when it returns; a crash leaves the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:  # which writes all of it, or raises
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_profile(profile: Profile) -> None:
    """Write the profile; from then on the agent is registered here."""
    fields: dict[str, object] = {
        "format": _FORMAT,
        "username": profile.username,
        "server": profile.server,
        "relay_id": profile.relay_id.hex(),
    }
    if profile.dialling.ca_file is not None:
        fields["ca_file"] = str(profile.dialling.ca_file.absolute())
    write_private(profile.directory / "profile.json", msgspec.json.format(msgspec.json.encode(fields), indent=1))


def load_profile(settings: Settings) -> Profile:
    """Return the agent's profile.

    Raises NoIdentity: there is none here; VaultNewer; VaultDamaged: the file is not what it should be.
    """
    path = settings.directory / "profile.json"
    try:
        fields = msgspec.json.decode(path.read_bytes())
        if fields["format"] > _FORMAT:
            raise VaultNewer("this agent's files were written by a newer version")
        return Profile(
            agent=settings.agent,
            username=parse_username(fields["username"]),
            server=settings.server or normal_server(fields["server"]),
            relay_id=RelayId(bytes.fromhex(fields["relay_id"])),
            directory=settings.directory,
            dialling=settings.dialling.believing(fields.get("ca_file")),
        )
    except FileNotFoundError:
        raise NoIdentity(f"the agent {settings.agent} has no identity here") from None
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput):
        raise VaultDamaged(
            f"the file {path} is damaged",
            hint="move it away and register the same username again: the token beside it proves that it is yours",
        ) from None


def save_token(path: Path, token: Token, passphrase: SecretBytes | None) -> None:
    """Write the token, sealed if there is a passphrase."""
    if passphrase is None:
        write_private(path, token.text().encode() + b"\n")
    else:
        write_private(path, _LOCKED + lock_token(token, passphrase, system_entropy))


def load_token(path: Path, passphrase: SecretBytes | None) -> Token:
    """Return the token. Raises NoIdentity, PassphraseWrong, TokenMalformed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NoIdentity("there is no token file here") from None
    if not content.startswith(_LOCKED):
        return parse_token(content.decode("ascii", "replace"))
    if passphrase is None:
        raise PassphraseWrong("the token is locked by a passphrase", hint="pass --passphrase-file")
    return unlock_token(content.removeprefix(_LOCKED), passphrase)
