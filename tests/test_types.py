"""Values are parsed once, at the edge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.errors import BadValue, UsernameMalformed
from aimessage.types import MessageId, SecretBytes, message_id_text, parse_message_id, parse_username


@pytest.mark.parametrize(
    ("raw", "name"), [("alice", "alice"), ("Worker-1", "worker-1"), ("0_0", "0_0"), ("a" * 32,) * 2]
)
def test_names_are_folded(raw: str, name: str) -> None:
    assert parse_username(raw) == name


@pytest.mark.parametrize(
    "raw", ["", "ab", "a" * 33, "-alice", "_alice", "al ice", "älice", "alice\n", "аlice", "alİce", "root", "Relay"]
)
def test_malformed_and_reserved_names_are_refused(raw: str) -> None:
    with pytest.raises(UsernameMalformed):
        parse_username(raw)


@given(st.binary(min_size=16, max_size=16).map(MessageId))
def test_a_message_id_survives_being_typed(message_id: MessageId) -> None:
    text = message_id_text(message_id)
    assert len(text) == 26
    assert parse_message_id(text.upper()) == message_id


@given(st.text(max_size=30))
def test_any_text_is_a_message_id_or_refused(text: str) -> None:
    try:
        parsed = parse_message_id(text)
    except BadValue:
        return
    assert message_id_text(parsed) == text.lower()


def test_secrets_neither_print_nor_compare() -> None:
    secret = SecretBytes(b"hunter2")
    assert "hunter2" not in f"{secret!r} {secret}"
    assert secret != SecretBytes(b"hunter2")
