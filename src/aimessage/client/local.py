"""What an agent does without its relay and without an event loop: look things up in its vault, and change them."""

from collections.abc import Callable, Sequence

from aimessage.client import consumers, contacts, deadletters, fates, gate, reading
from aimessage.client.account import Here, open_here
from aimessage.client.config import Settings
from aimessage.client.contacts import Contact
from aimessage.client.deadletters import DeadLetter
from aimessage.client.fates import Fate
from aimessage.client.history import Entry, history
from aimessage.client.message import Message
from aimessage.client.profile import Profile, load_profile
from aimessage.client.reading import Budget, InboxPage, Query, Slice
from aimessage.client.waiting import Blocking
from aimessage.e2ee.fingerprint import fingerprint, self_certifying
from aimessage.types import parse_message_id

__all__ = ["LocalAgent", "open_local"]


class LocalAgent:
    """One agent of this machine, as far as its own files go; `Agent` is this and its link."""

    def __init__(self, here: Here) -> None:
        self._here = here

    @property
    def profile(self) -> Profile:
        """Who this is, and where."""
        return self._here.profile

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of our identity."""
        return fingerprint(self._here.account.identity)

    @property
    def address(self) -> str:
        """Our self-certifying address, `name~…`: it pins without trust in the relay."""
        return self_certifying(self._here.profile.username, self._here.account.identity)

    def close(self) -> None:
        """Close the vault."""
        self._here.close()

    def _changed(self) -> None:
        """The vault has changed: whoever waits in this process may want to look."""

    def _held(self, piece: Slice) -> Slice:
        """Return *piece* in the hands of whoever can answer it."""
        return piece

    async def read(
        self,
        message_id: str,
        *,
        max_chars: int | None = None,
        offset: int = 0,
        cost: Callable[[Message], int] = reading.said_chars,
        keep: bool = False,
    ) -> Slice:
        """Return a message that is here, from character *offset* on, as far as *max_chars* goes; it counts as shown.

        With *keep* the caller says so itself, by `shown`. Raises MessageUnknown; BadValue: not an id, an offset behind
        the end.
        """
        budget = Budget(max_chars or reading.NO_END, cost)
        message, was_unread = reading.slice_of(self._here, message_id, budget, offset)
        if was_unread and not keep:
            self.shown([message])
        return self._held(message)

    def past(self, cursor: str) -> InboxPage:
        """Return what was shown or handled here behind *cursor*, whole, up to 1 000 messages. Raises BadValue."""
        return reading.look(self._here, Query(1_000, cursor, state="past"), Budget(reading.NO_END), claim=False)

    def shown(self, messages: Sequence[Message], *, until_handled: bool = False) -> None:
        """A consumer has been shown these messages: they do not come again."""
        consumers.mark_shown(self._here, [int(each.cursor) for each in messages], until_handled=until_handled)
        self._changed()

    def give_back(self, messages: Sequence[Message]) -> None:
        """Nobody has been shown these messages of a `wait` or an `inbox` with *keep*: whoever comes next gets them."""
        consumers.give_back(self._here, [int(each.cursor) for each in messages], seen=False)
        self._changed()

    def show_again(self, messages: Sequence[Message]) -> None:
        """These messages were `shown`, but what held them was thrown away unread: they come again, `redelivered`."""
        consumers.show_again(self._here, [int(each.cursor) for each in messages])
        self._changed()

    async def acknowledge(self, message_id: str) -> None:
        """A consumer has dealt with this message; its sender hears of it, if it asked to.

        Raises MessageUnknown; BadValue: not an id.
        """
        consumers.acknowledge(self._here, parse_message_id(message_id))
        self._changed()

    def note_failure(self, message: Message, trouble: str, *, most_tries: int) -> int:
        """A handler could not deal with *message*; return how often that has happened, in earlier processes too.

        At *most_tries* it is given up: no consumer gets it again until `retry`; `dead_letters` shows it.
        """
        return deadletters.note_failure(self._here, int(message.cursor), trouble, most_tries)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that handlers have given up, the oldest first."""
        return deadletters.listed(self._here)

    def retry(self, message_id: str) -> None:
        """Give a message that was given up to the next consumer. Raises MessageUnknown; BadValue: not an id."""
        deadletters.revive(self._here, parse_message_id(message_id))
        self._changed()

    def contacts(self) -> list[Contact]:
        """Return everybody we know, by name: whose messages we hear, who waits for a word, whom we block."""
        return contacts.listed(self._here)

    def contact_accept(self, name: str) -> Contact:
        """Hear *name* from now on, blocked or not; what waited of it comes next, in order. Raises UsernameMalformed."""
        contact = contacts.accept(self._here, name)
        self._changed()
        return contact

    def contact_block(self, name: str) -> Contact:
        """Hear nothing of *name* any more, and drop what nobody has seen; nobody is told. Raises UsernameMalformed."""
        contact = contacts.block(self._here, name)
        self._changed()
        return contact

    def safety_number(self, name: str) -> str:
        """Return the 60 digits that we and *name* see alike. Raises NotFound: we do not know its key."""
        return contacts.safety_number_with(self._here, name)

    @property
    def contact_policy(self) -> str:
        """Who may write to us: `open`, `contacts` (strangers wait for a word) or `closed`."""
        with self._here.vault.reading() as vault:
            return gate.policy_of(vault).value

    def set_contact_policy(self, policy: str) -> None:
        """Change who may write to us. Raises BadValue."""
        with self._here.vault.transaction() as vault:
            gate.save_policy(vault, gate.parse_policy(policy))

    def status(self, message_id: str) -> Fate:
        """Return what is known of one message of ours. Raises MessageUnknown; BadValue: not an id."""
        return fates.status(self._here, parse_message_id(message_id))

    def history(self, *, peer: str | None = None, limit: int = 50, before: str | None = None) -> list[Entry]:
        """Return up to *limit* messages both ways, the newest last, all before the cursor *before*."""
        return history(self._here, peer=peer, limit=limit, before=before)


def open_local(settings: Settings) -> LocalAgent | None:
    """Open the agent of *settings* for what needs no relay; None: it is not on this machine yet.

    Raises what `account.open_here` does.
    """
    if not (settings.directory / "profile.json").exists():
        return None
    return LocalAgent(open_here(load_profile(settings), settings.passphrase, Blocking()))
