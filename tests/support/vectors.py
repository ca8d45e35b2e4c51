"""Third-party test vectors, from the folder that AIMESSAGE_VECTORS names; a test without that folder is skipped."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["acvp_keys", "folder", "modulus_keys", "wycheproof"]


def folder() -> Path:
    """Return the folder of vectors, or skip the test that asks."""
    named = os.environ.get("AIMESSAGE_VECTORS", "")
    if not named:
        pytest.skip("AIMESSAGE_VECTORS names no folder of third-party vectors")
    return Path(named)


def wycheproof(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each (group, case) of a Wycheproof file."""
    for group in json.loads((folder() / "wycheproof" / f"{name}_test.json").read_bytes())["testGroups"]:
        for case in group["tests"]:
            yield group, case


def acvp_keys(parameters: str) -> Iterator[dict[str, str]]:
    """Yield the key-generation cases (hexadecimal d, z, ek) of one ML-KEM parameter set."""
    for group in json.loads((folder() / "acvp-mlkem" / "key-gen.json").read_bytes())["testGroups"]:
        if group["parameterSet"] == parameters:
            yield from group["tests"]


def modulus_keys(parameters: str) -> Iterator[bytes]:
    """Yield encapsulation keys that hold a coefficient which is not reduced."""
    with gzip.open(folder() / "cctv-mlkem" / "modulus" / f"{parameters}.txt.gz", "rt") as lines:
        for line in lines:
            if line.strip():
                yield bytes.fromhex(line.strip())
