"""The relay's storage: `ports` (what a store guarantees), `memory` (the reference), `rocksdb` (embedded default)."""
