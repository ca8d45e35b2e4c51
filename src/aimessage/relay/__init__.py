"""The relay: it carries what it cannot read. `app` starts it, `wiring` chooses its store, `service` runs it."""
