"""Every domain-separation string, in one table: no two purposes share one, none is the start of another."""

__all__ = [
    "ADDRESS_FINGERPRINT", "ASSOCIATED_DATA", "BUNDLE", "BUNDLE_REFERENCE", "IDEMPOTENCY", "IDENTITY_AGREEMENT",
    "IDENTITY_SIGNING", "IDENTITY_STATEMENT", "MESSAGE_KEY", "ONE_TIME_PAIR", "PAIR_REFERENCE", "PASSPHRASE",
    "PROVE", "REGISTER", "ROOT_STEP", "SESSION_KEY", "STATE_BLOB", "TOKEN", "TOKEN_CHECKSUM", "VAULT",
]  # fmt: skip

TOKEN = b"aimessage/1/token"
TOKEN_CHECKSUM = b"aimessage/1/checksum-of-token"
PASSPHRASE = b"aimessage/1/passphrase"

IDENTITY_SIGNING = b"aimessage/1/identity-signing-key"
IDENTITY_AGREEMENT = b"aimessage/1/identity-agreement-key"
VAULT = b"aimessage/1/vault-key"
STATE_BLOB = b"aimessage/1/state-blob-key"
IDEMPOTENCY = b"aimessage/1/idempotency-key"

IDENTITY_STATEMENT = b"aimessage/1/identity-statement"
BUNDLE = b"aimessage/1/bundle"
BUNDLE_REFERENCE = b"aimessage/1/reference-of-bundle"
ONE_TIME_PAIR = b"aimessage/1/one-time-pair"
PAIR_REFERENCE = b"aimessage/1/reference-of-pair"
PROVE = b"aimessage/1/prove"
REGISTER = b"aimessage/1/register"

SESSION_KEY = b"aimessage/1/session-key"
ASSOCIATED_DATA = b"aimessage/1/associated-data"
ROOT_STEP = b"aimessage/1/root-step"
MESSAGE_KEY = b"aimessage/1/message-key"

ADDRESS_FINGERPRINT = b"aimessage/1/address-fingerprint"
