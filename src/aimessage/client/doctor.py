"""Looks at everything that an agent's messages depend on and says of each whether it is well. It changes nothing.

Every check ends as a sentence, whatever it finds: a doctor that fails is no help.
"""

import shlex
import shutil
import stat
import unicodedata
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from os import geteuid
from pathlib import Path
from typing import Final

from aimessage import __version__
from aimessage.client.account import Here, open_here, own_vault_id
from aimessage.client.config import Settings
from aimessage.client.connection import log_in
from aimessage.client.dialling import Dialling
from aimessage.client.link import open_link
from aimessage.client.prekeys import PAIRS_LOW, is_stale
from aimessage.client.profile import Profile, load_profile
from aimessage.client.resident.calling import holder, is_door_there, look_for
from aimessage.clock import SystemClock, milliseconds
from aimessage.crypto.kem import require_support
from aimessage.e2ee.text import reveal
from aimessage.errors import AimessageError, CertificateRefused
from aimessage.types import ID_BYTES, SecretBytes
from aimessage.wire.frames import MailClass, RelayFrame

__all__ = ["Check", "examine", "examine_files", "examine_mail", "examine_vault"]

_EXTRAS: Final = {"mcp": "mcp", "nats": "nats", "tui": "textual"}
_DISK_FLOOR: Final = 64 << 20
_SKEW_MS: Final = 60_000
_LOOKS_HARMLESS: Final = "\U0001f600\u202e\ufe0f\u200b\U000e0041\x1b"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: *state* is ok, warn (works, and should be looked at) or fail; a *hint* can be run or done."""

    name: str
    state: str
    message: str
    hint: str | None = None


async def examine(settings: Settings) -> AsyncIterator[Check]:
    """Yield every check as soon as it is made; what depends on a failed one is left out."""
    yield _crypto()
    yield _text()
    yield _extras()
    try:
        profile = load_profile(settings)
    except AimessageError as error:
        yield _failed("identity", error)
        if settings.server is not None:
            async for check in _relay(settings.server, settings.dialling):
                yield check
        return
    yield Check("identity", "ok", f"{profile.username} at {profile.server} (agent {profile.agent})")
    yield examine_files(profile.directory)
    yield _disk(profile.directory)
    for check in _opened(profile, settings.passphrase):
        yield check
    yield _resident(profile)
    reachable = True
    async for check in _relay(profile.server, profile.dialling):
        reachable = reachable and check.state != "fail"
        yield check
    if reachable:
        async for check in _account(profile, settings.passphrase):
            yield check


def examine_files(directory: Path) -> Check:
    """Return whether nobody else can look into the agent's directory."""
    wrong = [path for path in (directory, *sorted(directory.rglob("*"))) if not _is_private(path)]
    if not wrong:
        return Check("files", "ok", f"{directory} is readable by its owner alone")
    hint = f"chmod -R go-rwx {shlex.quote(str(directory))}"
    return Check("files", "fail", f"others can look at {wrong[0]} ({len(wrong)} paths in all)", hint)


def examine_vault(here: Here) -> Iterator[Check]:
    """Yield whether the vault is whole and opens with our token. Raises VaultDamaged, VaultUnavailable."""
    with here.vault.reading() as vault:
        found = [row for (row,) in vault.run("PRAGMA integrity_check(5)")]
        if found != ["ok"]:
            yield Check("vault", "fail", f"the vault is damaged: {found[0]}", "restore under a new --agent")
            return
        for name in vault.peer_names():
            vault.peer(here.address(name))
    own_vault_id(here)
    yield Check("vault", "ok", "the vault is whole and opens with this agent's token")


def examine_mail(here: Here) -> Iterator[Check]:
    """Yield what waits in the outbox and the inbox. Raises VaultDamaged, VaultUnavailable."""
    with here.vault.reading() as vault:
        ours = (
            f"SELECT coalesce(sum(coalesce(length(members) / {ID_BYTES}, 1)), 0) FROM outbox "  # noqa: S608 - constants
            "LEFT JOIN batches ON batches.id = outbox.id WHERE mail_class = ?"
        )
        (leaving,) = vault.run(ours, (int(MailClass.MESSAGE),)).fetchone()
        rows = dict(vault.run("SELECT state, count(*) FROM inbox GROUP BY state").fetchall())
        unopened = "SELECT count(*) FROM inbox WHERE kind = 'undecryptable' AND state NOT IN ('shown', 'handled')"
        (undecryptable,) = vault.run(unopened).fetchone()
    if leaving:
        hint = "aimessage status ID tells of one; any command that reaches the relay sends them"
        yield Check("outbox", "warn", f"{leaving} messages wait to leave", hint)
    else:
        yield Check("outbox", "ok", "nothing waits to leave")
    told = f"{rows.get('new', 0)} unread, {rows.get('held', 0)} held for order, {undecryptable} undecryptable"
    yield Check("inbox", "warn" if undecryptable else "ok", told, "aimessage inbox --peek" if undecryptable else None)
    if rows.get("quarantined"):
        said = f"{rows['quarantined']} messages came under a key that is not the pinned one, and are not shown"
        yield Check("keys", "warn", said, "compare fingerprints with the peer's operator over another channel")
    if rows.get("dead"):
        yield Check("handlers", "warn", f"{rows['dead']} messages were given up", "aimessage inbox --state dead")


def _opened(profile: Profile, passphrase: SecretBytes | None) -> Iterator[Check]:
    try:
        here = open_here(profile, passphrase)
        try:
            yield from examine_vault(here)
            yield from examine_mail(here)
        finally:
            here.close()
    except AimessageError as error:
        yield _failed("vault", error)


async def _relay(server: str, dialling: Dialling) -> AsyncIterator[Check]:
    readable: list[str] = []
    dialling = Dialling(dialling.ca_file, dialling.https_proxy, dialling.http_proxy, dialling.no_proxy, readable.append)
    try:
        link, welcome = await open_link(server, _ignore, dialling)
    except CertificateRefused as error:
        yield _failed("tls", error)
        return
    except AimessageError as error:
        yield _failed("relay", error)
        return
    link.close()
    older = "" if welcome.version == __version__ else f"; this client is {__version__}"
    yield Check("relay", "ok", f"{server} answers, version {welcome.version[:32]!a}{older}")
    if readable:
        yield Check("tls", "warn", readable[0], "have the relay speak TLS and use its wss:// address")
    else:
        yield Check("tls", "ok", "the certificate verifies" if server.startswith("wss") else "stays on this machine")
    apart = abs(welcome.time - milliseconds(SystemClock().now()))
    if apart > _SKEW_MS:
        yield Check("clock", "warn", f"this clock and the relay's are {apart // 1000} s apart", "timedatectl status")
    else:
        yield Check("clock", "ok", f"{apart / 1000:.1f} s from the relay's")


async def _account(profile: Profile, passphrase: SecretBytes | None) -> AsyncIterator[Check]:
    try:
        here = open_here(profile, passphrase)
    except AimessageError:
        return  # told already
    try:
        live = await log_in(here, _ignore)
    except AimessageError as error:
        yield _failed("login", error)
        return
    else:
        live.link.close()
        yield Check("login", "ok", "the relay knows this identity")
        yield _prekeys(here, live.proved.vault_id, live.proved.pairs)
    finally:
        here.close()


def _prekeys(here: Here, vault_id: bytes, pairs: int) -> Check:
    if vault_id != own_vault_id(here):
        said = "another machine, or an older vault, receives for this identity now"
        return Check("prekeys", "warn", said, "aimessage listen takes over")
    if is_stale(here) or pairs < PAIRS_LOW:
        return Check(
            "prekeys", "warn", f"the published keys are old or few ({pairs} left)", "aimessage inbox --limit 1"
        )
    return Check("prekeys", "ok", f"published, {pairs} one-time pairs left")


def _crypto() -> Check:
    try:
        require_support()
    except AimessageError as error:
        return _failed("crypto", error)
    return Check("crypto", "ok", "AES-256-GCM, X25519, Ed25519 and ML-KEM are there")


def _text() -> Check:
    shown, _ = reveal(_LOOKS_HARMLESS)
    if shown.isascii():
        return Check("text", "ok", f"AIM-TEXT-1 on Unicode {unicodedata.unidata_version}; newer letters are refused")
    return Check(
        "text", "fail", "the text profile lets hidden characters through", "pip install --force-reinstall aimessage"
    )


def _resident(profile: Profile) -> Check:
    seen = look_for(profile.directory)
    if seen is None and (pid := holder(profile.directory)):
        return Check("resident", "warn", f"pid {pid} does not answer; sends wait for it in vain", f"kill -9 {pid}")
    if seen is None and is_door_there(profile.directory):
        return Check("resident", "warn", "it was killed; sends go without it", "aimessage up")
    if seen is None:
        return Check("resident", "ok", "there is none; aimessage up makes sends quicker")
    told = f"up (pid {seen.pid}), {seen.sent} messages sent"
    if seen.version != __version__:
        other = f"{told}, but of version {seen.version}: sends go without it"
        return Check("resident", "warn", other, "aimessage down && aimessage up")
    if not seen.is_linked:
        return Check("resident", "warn", f"{told}, not linked: {seen.trouble or 'on its way to the relay'}")
    return Check("resident", "ok", told)


def _extras() -> Check:
    here = [name for name, module in _EXTRAS.items() if find_spec(module) is not None]
    gone = [name for name in _EXTRAS if name not in here]
    hint = f"pip install 'aimessage[{','.join(gone)}]'" if gone else None
    return Check("extras", "ok", f"installed: {', '.join(here) or 'none'}; not: {', '.join(gone) or 'none'}", hint)


def _disk(directory: Path) -> Check:
    free = shutil.disk_usage(directory).free
    if free < _DISK_FLOOR:
        return Check(
            "disk", "fail", f"{free >> 20} MiB are free at {directory}", f"df -h {shlex.quote(str(directory))}"
        )
    return Check("disk", "ok", f"{free >> 20} MiB are free")


def _is_private(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True  # gone meanwhile
    return stat.S_ISLNK(found.st_mode) or (not found.st_mode & 0o077 and found.st_uid == geteuid())


def _failed(name: str, error: AimessageError) -> Check:
    return Check(name, "fail", error.message, error.hint)


def _ignore(_: RelayFrame) -> None:
    """Nothing is pushed to a link that does not receive."""
