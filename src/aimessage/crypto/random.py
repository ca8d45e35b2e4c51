"""The one door to entropy. Everything that needs it takes it as an argument of type `Entropy`."""

import os
from collections.abc import Callable

__all__ = ["Entropy", "system_entropy"]

Entropy = Callable[[int], bytes]
"""Returns that many unpredictable bytes."""


def system_entropy(count: int) -> bytes:
    """Return *count* bytes from the operating system's generator."""
    return os.urandom(count)
