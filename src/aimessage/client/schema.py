"""The vault's tables, as steps: a new vault takes them all, an older one those that it lacks.

What each means: docs/spec/storage.md §2.
"""

from typing import Final

__all__ = ["SCHEMA_STEPS", "SCHEMA_VERSION"]

_FIRST: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE peers (
    name TEXT PRIMARY KEY, pin BLOB, trust TEXT NOT NULL DEFAULT 'first-use', contact TEXT NOT NULL DEFAULT 'accepted',
    epoch INTEGER NOT NULL DEFAULT 0, sent_sequence INTEGER NOT NULL DEFAULT 0, conversation BLOB) WITHOUT ROWID;
CREATE TABLE bundles (reference BLOB PRIMARY KEY, made_at INTEGER NOT NULL, secrets BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pairs (reference BLOB PRIMARY KEY, secrets BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, peer TEXT NOT NULL, attempt INTEGER NOT NULL,
    mail_class INTEGER NOT NULL, expires_at INTEGER NOT NULL, sealed BLOB NOT NULL, prefix TEXT);
CREATE TABLE sent (
    id BLOB PRIMARY KEY, peer TEXT NOT NULL, fate TEXT NOT NULL, code TEXT, changed_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, pin BLOB, idempotency BLOB UNIQUE,
    body BLOB) WITHOUT ROWID;
CREATE TABLE inbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT NOT NULL, id BLOB NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL, state TEXT NOT NULL, received_at INTEGER NOT NULL, consumer TEXT, content BLOB NOT NULL);
CREATE INDEX inbox_state ON inbox (state, row);
CREATE TABLE seen (sender TEXT NOT NULL, id BLOB NOT NULL, PRIMARY KEY (sender, id)) WITHOUT ROWID;
CREATE TABLE awaits (id BLOB PRIMARY KEY, peer TEXT NOT NULL, answer INTEGER, until INTEGER NOT NULL) WITHOUT ROWID;
"""

_DELIVERY: Final = """
UPDATE peers SET conversation = NULL;
CREATE TABLE heard (peer TEXT NOT NULL, vault BLOB NOT NULL, next INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (peer, vault)) WITHOUT ROWID;
ALTER TABLE peers ADD COLUMN reset_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN body BLOB;
ALTER TABLE sent ADD COLUMN saved_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sent ADD COLUMN relay_due INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sent ADD COLUMN digest BLOB;
ALTER TABLE sent ADD COLUMN summary BLOB;
ALTER TABLE sent ADD COLUMN owner TEXT;
CREATE INDEX sent_digest ON sent (digest) WHERE fate = 'waiting';
CREATE INDEX sent_saved ON sent (saved_at);
CREATE INDEX sent_open ON sent (relay_due) WHERE fate IN ('waiting', 'accepted');
ALTER TABLE inbox ADD COLUMN answers BLOB NOT NULL DEFAULT x'';
ALTER TABLE inbox ADD COLUMN vault BLOB NOT NULL DEFAULT x'';
ALTER TABLE inbox ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN flags TEXT NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN wants INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN due INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN redelivered INTEGER NOT NULL DEFAULT 0;
CREATE INDEX inbox_message ON inbox (sender, id);
CREATE INDEX inbox_held ON inbox (held) WHERE held = 1;
CREATE INDEX inbox_due ON inbox (due) WHERE state IN ('held', 'asked');
ALTER TABLE seen ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX seen_at ON seen (at);
CREATE INDEX outbox_peer ON outbox (peer, mail_class, row);
ALTER TABLE awaits ADD COLUMN owner TEXT NOT NULL DEFAULT '';
CREATE TABLE receipts (peer TEXT NOT NULL, id BLOB NOT NULL, fate INTEGER NOT NULL,
    PRIMARY KEY (peer, id, fate)) WITHOUT ROWID;
CREATE TABLE retries (row INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, id BLOB NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0, at INTEGER NOT NULL, UNIQUE (peer, id));
"""

_MANNERS: Final = """
ALTER TABLE peers ADD COLUMN presented BLOB;
ALTER TABLE peers ADD COLUMN met_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN turned_away INTEGER NOT NULL DEFAULT 0;
CREATE TABLE automatic (row INTEGER PRIMARY KEY, peer TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX automatic_peer ON automatic (peer, at);
ALTER TABLE inbox ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN trouble TEXT;
CREATE INDEX inbox_sender ON inbox (sender, state);
"""

_BATCHES: Final = """
CREATE TABLE batches (row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, peer TEXT NOT NULL, pin BLOB,
    at INTEGER NOT NULL, members BLOB NOT NULL, bodies BLOB NOT NULL);
ALTER TABLE sent ADD COLUMN batch BLOB;
ALTER TABLE inbox ADD COLUMN envelope BLOB;
CREATE INDEX inbox_early ON inbox (sender, vault, sequence) WHERE state = 'held';
CREATE INDEX inbox_envelope ON inbox (sender, envelope) WHERE held = 1 AND envelope IS NOT NULL;
"""

SCHEMA_STEPS: Final = (_FIRST, _DELIVERY, _MANNERS, _BATCHES)
SCHEMA_VERSION: Final = len(SCHEMA_STEPS)
