"""How an identity comes to this machine: registered, or restored from its token. Nothing half-written stays behind."""

import contextlib

from msgspec.structs import replace

from aimessage.client.account import Here, Live, open_here, relay_clock
from aimessage.client.config import Settings
from aimessage.client.connection import log_in
from aimessage.client.gate import Policy, parse_policy, save_policy
from aimessage.client.link import dialled_host, open_link
from aimessage.client.locks import file_lock
from aimessage.client.prekeys import mark_published, new_bundle, stock_pairs
from aimessage.client.profile import (
    Profile,
    load_profile,
    load_token,
    make_directory,
    save_profile,
    save_token,
    write_private,
)
from aimessage.client.state import fetch_state, store_state
from aimessage.client.waiting import OnLoop
from aimessage.crypto.kem import require_support
from aimessage.crypto.random import system_entropy
from aimessage.e2ee.identity import Token, mint_token, parse_token, prove_registration
from aimessage.errors import BadValue, IdentityExists, NoIdentity, Temporary, TokenMalformed, UsernameTaken
from aimessage.types import RelayId, Username, parse_username
from aimessage.wire.frames import Register, RelayFrame, Welcome
from aimessage.wire.limits import PAIRS_PER_STOCK

__all__ = ["register", "restore", "token_text"]


def token_text(settings: Settings) -> str:
    """Return the agent's token. Raises NoIdentity, PassphraseWrong."""
    return load_token(load_profile(settings).token_path, settings.passphrase).text()


async def register(
    settings: Settings,
    username: str,
    *,
    if_not_exists: bool = False,
    invite: str = "",
    contact_policy: str = "open",
) -> Profile:
    """Make a new identity and claim *username* for it; safe to repeat after any failure.

    *invite*: the code from the relay's operator, where one is needed; by default the one in *settings*.
    *contact_policy* says who may write to it: open, contacts or closed. With *if_not_exists* an agent that has this
    name already is returned as it is, and `is_new` is false.

    Raises IdentityExists, UsernameTaken, UsernameMalformed, RelayUnreachable, NotARelay; InviteNeeded, InviteRefused,
    RegistrationClosed where not everybody may register.
    """
    require_support()
    name, policy = parse_username(username), parse_policy(contact_policy)
    if not invite and settings.invite is not None:
        invite = settings.invite.reveal.decode("utf-8", "replace").strip()
    if _existing(settings) is None:
        _server(settings)  # before anything is made here
    # One at a time: two that mint would leave one's token beside the other's vault, and the name lost.
    async with file_lock(settings.directory / "locks" / "enrolment", OnLoop()):
        return await _register(settings, name, invite, policy, if_not_exists=if_not_exists)


async def _register(settings: Settings, name: Username, invite: str, policy: Policy, *, if_not_exists: bool) -> Profile:
    existing = _existing(settings)
    if existing is not None:
        if if_not_exists and existing.username == name:
            return existing
        raise IdentityExists(
            f"the agent {settings.agent} is already registered as {existing.username}",
            hint="use another name with --agent NAME, or pass --if-not-exists",
        )
    server = _server(settings)
    link, welcome = await open_link(server, _ignore, settings.dialling)
    try:
        profile = _profile(settings, name, server, welcome)
        make_directory(profile.directory)
        try:
            with contextlib.closing(_pending(profile, settings)) as here:
                with here.vault.transaction() as vault:
                    save_policy(vault, policy)  # before anybody can write to us
                    vault.bump("state_changes")
                proved = await link.prove(_registration(here, welcome, invite))
                # From here the name is ours: the profile makes it so on this machine too.
                save_profile(profile)
                mark_published(here)
                with contextlib.suppress(
                    Temporary
                ):  # the next listen fills the stock; till then the last resort serves
                    await stock_pairs(here, link, PAIRS_PER_STOCK)
                    # A container that starts from the token alone must find the gate as it was set here.
                    await store_state(here, Live(link, proved, relay_clock(welcome)))
        except UsernameTaken:  # by another key: this token owns nothing
            _forget(profile)
            raise
        return replace(profile, is_new=True)
    finally:
        link.close()


async def restore(settings: Settings, username: str) -> Profile:
    """Bring an existing identity to this machine, from the token in *settings*.

    Raises TokenMalformed, ProofRejected, IdentityExists, RelayUnreachable.
    """
    require_support()
    name = parse_username(username)
    if settings.token is None:
        raise TokenMalformed("no token was given", hint="set AIMESSAGE_TOKEN, or pass --token-file")
    token = parse_token(settings.token.reveal.decode("utf-8", "replace"))
    server = _server(settings)
    async with file_lock(settings.directory / "locks" / "enrolment", OnLoop()):
        return await _restore(settings, name, token, server)


async def _restore(settings: Settings, name: Username, token: Token, server: str) -> Profile:
    existing = _existing(settings)
    if existing is not None:
        raise IdentityExists(f"the agent {settings.agent} is already registered as {existing.username}")
    link, welcome = await open_link(server, _ignore, settings.dialling)
    link.close()
    profile = _profile(settings, name, server, welcome)
    make_directory(profile.directory)
    _set_aside(profile)
    save_token(profile.token_path, token, settings.passphrase)
    here = open_here(profile, settings.passphrase)
    try:
        live = await log_in(here, _ignore)
        try:
            await fetch_state(here, live.link, live.proved.epoch)
        finally:
            live.link.close()
    except BaseException:
        here.close()
        _forget(profile)
        raise
    here.close()
    save_profile(profile)
    return profile


def _profile(settings: Settings, name: Username, server: str, welcome: Welcome) -> Profile:
    return Profile(settings.agent, name, server, RelayId(welcome.relay_id), settings.directory, settings.dialling)


def _pending(profile: Profile, settings: Settings) -> Here:
    """Return the agent that is about to be registered; an earlier attempt's token is used again if it fits."""
    note = profile.directory / "pending"
    if profile.token_path.exists() and note.exists() and note.read_text() == _note(profile):
        return open_here(profile, settings.passphrase)
    _set_aside(profile)
    token: Token = mint_token(profile.username, system_entropy)
    save_token(profile.token_path, token, settings.passphrase)
    write_private(note, _note(profile).encode())
    return open_here(profile, settings.passphrase)


def _note(profile: Profile) -> str:
    return f"{profile.username} {profile.relay_id.hex()}"


def _registration(here: Here, welcome: Welcome, invite: str) -> Register:
    bundle = new_bundle(here)
    host, client_nonce = dialled_host(here.profile.server), here.entropy(32)
    signature = prove_registration(
        here.account, host, relay_nonce=welcome.nonce, client_nonce=client_nonce, vault_id=bundle.vault_id
    )
    username: Username = here.profile.username
    return Register(username, host, client_nonce, bundle.vault_id, signature, bundle.encode(), invite)


def _existing(settings: Settings) -> Profile | None:
    try:
        return load_profile(replace(settings, server=None))
    except NoIdentity:
        return None


def _server(settings: Settings) -> str:
    if settings.server is None:
        raise BadValue("no relay was named", hint="pass --server ws://localhost:8080, or set AIMESSAGE_SERVER")
    return settings.server


def _set_aside(profile: Profile) -> None:
    """Keep a token that an unfinished registration left: its answer may have been lost, and a name be its own."""
    if profile.token_path.exists():
        taken = len(list(profile.directory.glob("token.unfinished-*")))
        profile.token_path.replace(profile.directory / f"token.unfinished-{taken + 1}")
    _forget(profile)


def _forget(profile: Profile) -> None:
    for name in ("token", "pending", "vault.db", "vault.db-wal", "vault.db-shm"):
        (profile.directory / name).unlink(missing_ok=True)


def _ignore(_: RelayFrame) -> None:
    """Nothing is pushed to a link that does not receive."""
