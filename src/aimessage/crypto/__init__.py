"""Thin, misuse-resistant wrappers over `cryptography`, the only package that imports it.

Modules: `aead` `dh` `kdf` `kem` `signing` `random`, and `labels`, the table of domain-separation strings.
"""
