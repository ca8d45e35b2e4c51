"""The token and what is derived from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.crypto import kdf
from aimessage.crypto.random import system_entropy
from aimessage.e2ee.identity import (
    Token,
    lock_token,
    mint_token,
    open_account,
    parse_token,
    state_identity,
    unlock_token,
    verify_statement,
)
from aimessage.errors import DecryptionFailed, PassphraseWrong, TokenMalformed
from aimessage.types import Address, RelayId, SecretBytes, Username
from support.agents import RELAY, seeded

ALICE = Address(RELAY, Username("alice"))
SECRETS = st.binary(min_size=32, max_size=32).map(SecretBytes)


@given(SECRETS)
def test_a_token_survives_being_written_down(secret: SecretBytes) -> None:
    text = Token(secret).text()
    assert text.startswith("aim1-")
    assert parse_token(f"  {text.upper()}\n").secret.reveal == secret.reveal


@given(SECRETS, st.integers(5, 60), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_character_is_noticed(secret: SecretBytes, at: int, character: str) -> None:
    text = Token(secret).text()
    wrong = text[:at] + character + text[at + 1 :]
    if wrong != text:
        with pytest.raises(TokenMalformed) as caught:
            parse_token(wrong)
        assert wrong not in str(caught.value)


@pytest.mark.parametrize("text", ["", "aim1-", "aim2-" + "a" * 56, "hello", "aim1-ä", "aim1-" + "a" * 56])
def test_what_is_not_a_token_is_refused(text: str) -> None:
    with pytest.raises(TokenMalformed):
        parse_token(text)


def test_a_frozen_token_gives_frozen_keys() -> None:
    account = open_account(Token(SecretBytes(bytes(range(32)))), ALICE)
    assert kdf.sha256(account.identity.signing_key, account.identity.agreement_key).hex() == FROZEN_IDENTITY
    assert len({account.vault_key.reveal, account.state_key.reveal, account.signing.reveal}) == 3


FROZEN_IDENTITY = "4651655b3b212378280dbe9394a6431c44cb5846ed6465b0b1662d27a64f569f"


def test_tokens_of_the_same_name_differ() -> None:
    first, second = (mint_token(Username("alice"), system_entropy) for _ in range(2))
    assert first.secret.reveal != second.secret.reveal


def test_a_passphrase_locks_the_token_and_changes_nothing_else() -> None:
    token = Token(SecretBytes(bytes(range(32))))
    locked = lock_token(token, SecretBytes(b"correct horse"), seeded(1))
    assert token.secret.reveal not in locked
    assert unlock_token(locked, SecretBytes(b"correct horse")).secret.reveal == token.secret.reveal
    for passphrase, octets in ((b"wrong horse", locked), (b"correct horse", locked[:-1]), (b"correct horse", b"")):
        with pytest.raises(PassphraseWrong):
            unlock_token(octets, SecretBytes(passphrase))


def test_a_statement_holds_for_its_own_address_only() -> None:
    account = open_account(Token(SecretBytes(bytes(32))), ALICE)
    statement = state_identity(account)
    verify_statement(account.identity, ALICE, statement)
    for address in (Address(RELAY, Username("alicia")), Address(RelayId(bytes(16)), Username("alice"))):
        with pytest.raises(DecryptionFailed):
            verify_statement(account.identity, address, statement)
