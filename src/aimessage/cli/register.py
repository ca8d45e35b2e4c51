"""`aimessage register`: a new identity, at a relay, under a username of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimessage.cli.octets import read_file, read_stdin
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.errors import BadValue, NotUtf8

if TYPE_CHECKING:
    from aimessage.cli.render import Screen
    from aimessage.client.profile import Profile

__all__ = ["register", "show_profile"]


@click.command()
@click.option("-u", "--username", required=True, metavar="NAME", help="3 to 32 of a-z 0-9 _ -")
@click.option("--if-not-exists", is_flag=True, help="Succeed when this agent already has this identity.")
@click.option(
    "--invite-file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="The file with the relay operator's invitation, - for standard input (or AIMESSAGE_INVITE).",
)
@click.option(
    "--contact-policy",
    type=click.Choice(["open", "contacts", "closed"]),
    default="open",
    show_default=True,
    help="Who may write to it: anybody; contacts, and others wait for a word; or contacts only.",
)
@shared_options
def register(shared: Shared, username: str, if_not_exists: bool, invite_file: Path | None, contact_policy: str) -> None:
    """Create an identity and register its username at the relay.

    The token, which is the identity, is kept in a file that only you can read; it is never printed here.
    """
    from aimessage import client

    invite = _invitation(invite_file) if invite_file is not None else ""
    profile = run_async(
        client.register(
            shared.settings(), username, if_not_exists=if_not_exists, invite=invite, contact_policy=contact_policy
        )
    )
    show_profile(shared.screen, "registered", profile, created=profile.is_new)


def show_profile(screen: "Screen", kind: str, profile: "Profile", *, created: bool = True) -> None:
    """Print what an agent has become, and where its token lies; not the token. Not *created*: nothing was done."""
    shape = {
        "v": 1,
        "type": kind,
        "agent": profile.agent,
        "username": profile.username,
        "server": profile.server,
        "token_path": str(profile.token_path),
        "created": created,
    }
    said = f"{profile.username} at {profile.server}"
    screen.show(shape, f"{kind.capitalize()} {said}" if created else f"Nothing to do: already {kind} as {said}")
    screen.talk(f"the token lies in {profile.token_path} (only you can read it); to print it: aimessage token show")


def _invitation(path: Path) -> str:
    try:
        text = (read_stdin() if str(path) == "-" else read_file(str(path))).decode().strip()
    except UnicodeDecodeError as error:
        raise NotUtf8("the invitation is not UTF-8 text", hint=f"check the file {path}") from error
    if not text:
        raise BadValue("there is no invitation in it", hint=f"check the file {path}")
    return text
