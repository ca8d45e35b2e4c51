"""The operator's commands about invitations to a relay that runs with --registration invite."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import click

from aimessage.errors import BadValue, RelayUnavailable
from aimessage.relay.asking import asking
from aimessage.relay.operate import Flags, command_for, db_path_option

__all__ = ["INVITING"]

_UNITS_MS = {"": 1_000, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LIFE = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)


@click.group("invite")
def _invite() -> None:
    """Invitations to register at a running relay."""


@_invite.command("create")
@click.option("--label", default="", help="what the list shows beside it, for example whom it is for")
@click.option("--uses", type=int, default=1, show_default=True, help="how many registrations it is good for")
@click.option("--ttl", default="7d", show_default=True, help="for how long, like 12h or 30d; 0: until it is revoked")
@db_path_option
@click.pass_obj
def _create(flags: Flags, label: str, uses: int, ttl: str, db_path: str | None) -> None:
    """Make an invitation and print its code, once: the relay keeps only a digest of it."""
    with command_for(flags, db_path):
        life = _milliseconds(ttl)
    with asking(flags, db_path) as (config, line):
        made = line.ask("invite", label=label, uses=uses, ttl_ms=life)
        if config.log_format == "json":
            click.echo(json.dumps(_shown(made)))
            return
        click.echo(made["code"])
        click.echo(f"{_told(made)}; the code is not shown again", err=True)
        click.echo("its holder registers with: aimessage register --username NAME --invite-file FILE", err=True)
        if made["registration"] != "invite":
            note = f"this relay runs with --registration {made['registration']}, and asks for no invitation"
            click.echo(f"note: {note}", err=True)


@_invite.command("list")
@db_path_option
@click.pass_obj
def _list(flags: Flags, db_path: str | None) -> None:
    """Print every invitation, the oldest first; not its code, which nobody knows any more."""
    with asking(flags, db_path) as (config, line):
        rows = line.ask("invites")["invites"]
        if not isinstance(rows, list):
            raise RelayUnavailable("the relay's answer is not a list")
        for row in rows:
            click.echo(json.dumps(_shown(row)) if config.log_format == "json" else _told(row))


@_invite.command("revoke")
@click.argument("invitation")
@db_path_option
@click.pass_obj
def _revoke(flags: Flags, invitation: str, db_path: str | None) -> None:
    """Delete the invitation with the id INVITATION; who has registered with it stays."""
    with asking(flags, db_path) as (config, line):
        row = line.ask("revoke", id=invitation)
        click.echo(json.dumps(_shown(row)) if config.log_format == "json" else f"revoked: {_told(row)}")


INVITING: tuple[click.Command, ...] = (_invite,)


def _milliseconds(ttl: str) -> int:
    found = _LIFE.fullmatch(ttl)
    if found is None:
        raise BadValue(f"{ttl!r} is not a duration", hint="write it like 30m, 12h or 7d; 0 for no end")
    return int(found[1]) * _UNITS_MS[found[2]]


def _shown(row: Mapping[str, object]) -> Mapping[str, object]:
    return {**row, **{name: _time(row[name]) for name in ("made_at", "expires_at")}}


def _told(row: Mapping[str, object]) -> str:
    until = _time(row["expires_at"])
    life = f"until {until}" if until else "for ever"
    label = f"  {row['label']}" if row["label"] else ""
    return f"{row['id']}  used {row['used']} of {row['uses']}  {'over' if row['over'] else life}{label}"


def _time(moment: object) -> str | None:
    if not isinstance(moment, int):
        return None
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
