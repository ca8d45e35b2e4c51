"""The end-to-end protocol, sans-I/O: identity, prekeys, handshake, ratchet, sessions, bodies, fingerprints, text.

Every state here is an immutable value: an operation returns the next state or raises and changes nothing.
"""
