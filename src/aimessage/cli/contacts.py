"""`aimessage contacts`: whose messages are heard, who waits for a word, whose key a person has compared."""

from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async, run_local

if TYPE_CHECKING:
    from aimessage.cli.render import Screen
    from aimessage.client import Contact
    from aimessage.client.local import LocalAgent

__all__ = ["contacts"]


@click.group(short_help="Decide whose messages are heard.")
@shared_options
def contacts(_shared: Shared) -> None:
    """Decide whose messages are heard.

    Sending to somebody accepts it. With the policy `contacts`, the first messages of anybody else wait for a word; with
    `closed` they are not kept. Nobody is told that it waits, or is blocked.
    """


@contacts.command("list", short_help="Show everybody we know.")
@shared_options
def list_all(shared: Shared) -> None:
    """Show everybody we know: key fingerprint, how far the key is trusted, and whether its messages are heard."""
    run_local(shared, lambda me: _list(shared, me))


async def _list(shared: Shared, me: "LocalAgent") -> None:
    found, policy = me.contacts(), me.contact_policy
    for contact in found:
        _show(shared.screen, contact)
    shared.screen.talk(f"contact policy: {policy}")


@contacts.command(short_help="Ask to be heard by somebody.")
@click.argument("name", metavar="NAME")
@click.option("--note", metavar="TEXT", help="What NAME reads once it accepts.")
@shared_options
def request(shared: Shared, name: str, note: str | None) -> None:
    """Ask to be heard by NAME; its answers are heard from now on."""
    run_async(_request(shared, name, note))


async def _request(shared: Shared, name: str, note: str | None) -> None:
    async with shared.agent_here() as me:
        sent = await me.contact_request(name, note)
    shape = {"v": 1, "type": "sent", "id": sent.id, "to": sent.to, "state": sent.state}
    shared.screen.show(shape, f"Contact request sent to {sent.to} ({sent.state})")


@contacts.command(short_help="Hear somebody from now on.")
@click.argument("name", metavar="NAME")
@shared_options
def accept(shared: Shared, name: str) -> None:
    """Hear NAME from now on, blocked or not. What waited comes with the next wait or listen, in order."""
    run_local(shared, lambda me: _accept(shared, me, name))


async def _accept(shared: Shared, me: "LocalAgent", name: str) -> None:
    _show(shared.screen, me.contact_accept(name))


@contacts.command(short_help="Hear nothing of somebody any more.")
@click.argument("name", metavar="NAME")
@shared_options
def block(shared: Shared, name: str) -> None:
    """Hear nothing of NAME any more, and drop what nobody has seen of it. NAME is not told."""
    run_local(shared, lambda me: _block(shared, me, name))


async def _block(shared: Shared, me: "LocalAgent", name: str) -> None:
    _show(shared.screen, me.contact_block(name))


@contacts.command(short_help="Say that a key has been compared.")
@click.argument("name", metavar="NAME")
@click.argument("fingerprint", metavar="[FINGERPRINT]", required=False)
@shared_options
def verify(shared: Shared, name: str, fingerprint: str | None) -> None:
    """Say that the key of NAME has been compared over another channel.

    FINGERPRINT is the address that `aimessage whoami` prints at NAME (name~…), or the safety number that both sides
    see: without FINGERPRINT it is printed. A key that has changed is believed in this way only.
    """
    if fingerprint is None:
        run_local(shared, lambda me: _tell_number(shared, me, name))
    else:
        run_async(_verify(shared, name, fingerprint))


async def _tell_number(shared: Shared, me: "LocalAgent", name: str) -> None:
    number = me.safety_number(name)
    shape = {"v": 1, "type": "safety_number", "name": name, "safety_number": number}
    shared.screen.show(shape, " ".join(number[at : at + 5] for at in range(0, len(number), 5)))


async def _verify(shared: Shared, name: str, fingerprint: str) -> None:
    async with shared.agent_here() as me:
        _show(shared.screen, await me.contact_verify(name, fingerprint))


@contacts.command(short_help="Show or set who may write to us.")
@click.argument("choice", metavar="[open|contacts|closed]", required=False)
@shared_options
def policy(shared: Shared, choice: str | None) -> None:
    """Show who may write to us, or change it: anybody, contacts only (strangers wait), or contacts only (strangers are
    not kept).
    """
    run_local(shared, lambda me: _policy(shared, me, choice))


async def _policy(shared: Shared, me: "LocalAgent", choice: str | None) -> None:
    if choice is not None:
        me.set_contact_policy(choice)
    now = me.contact_policy
    shared.screen.show({"v": 1, "type": "contact_policy", "policy": now}, f"contact policy: {now}")


def _show(screen: "Screen", contact: "Contact") -> None:
    from msgspec.structs import asdict

    waiting = f", {contact.requests} waiting" if contact.requests else ""
    dropped = f", {contact.turned_away} not kept" if contact.turned_away else ""
    key = f"key {contact.fingerprint} {contact.trust}" if contact.fingerprint else "no key yet"
    screen.show(
        {"v": 1, "type": "contact", **asdict(contact)}, f"{contact.name}: {contact.contact}{waiting}{dropped}, {key}"
    )
