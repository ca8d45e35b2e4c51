"""The specification says what the program does: its tables and sizes are compared with the code's."""

import re
from pathlib import Path

import msgspec
import pytest

from aimessage.crypto import kem
from aimessage.e2ee.bodies import Body
from aimessage.e2ee.handshake import PrekeyPart
from aimessage.e2ee.header import Header
from aimessage.e2ee.identity import Identity
from aimessage.types import RelayId, Username, VaultId
from aimessage.wire import frames
from aimessage.wire.bundles import Bundle, OneTimePair
from aimessage.wire.link import CLIENT_TABLE, RELAY_TABLE, Move, State

DOCS = Path(__file__).parents[1] / "docs"
SPEC = DOCS / "spec"
_WORDS = {int: "int", str: "str", bytes: "bin", bool: "bool", float: "float"}


def rows_of_table(section: str) -> list[str]:
    """Return the table rows of one `###` section of link.md, without the head."""
    text = (SPEC / "link.md").read_text(encoding="utf-8").partition(f"### {section} ")[2]
    return [line for line in re.split(r"\n##", text)[0].splitlines() if line.startswith("| ")][1:]


def rendered(table: dict[State, dict[Move, State]]) -> list[str]:
    """Return a link's table as rows of Markdown."""
    return [
        f"| {state.name} | {move.name} | {following.name} |"
        for state, row in table.items()
        for move, following in row.items()
    ]


def described(frame: type[msgspec.Struct]) -> str:
    """Return a frame as a row of Markdown."""
    fields = []
    for field in msgspec.structs.fields(frame):
        word = _WORDS.get(field.type) or ("list" if "list" in str(field.type) else field.type.__name__)
        fields.append(f"{field.name} {word}" + ("" if field.required else f"={field.default!r}"))
    return f"| {frame.__struct_config__.tag} | {frame.__name__} | {', '.join(fields)} |"


def stated_size(page: str, after: str) -> int:
    """Return the first number of bytes that a page states behind *after*."""
    text = (SPEC / page).read_text(encoding="utf-8").partition(after)[2]
    found = re.search(r"([\d ]+?) (?:\+ n )?bytes", text)
    assert found is not None
    return int(found[1].replace(" ", ""))


@pytest.mark.parametrize(("section", "table"), [("5.1", RELAY_TABLE), ("5.2", CLIENT_TABLE)])
def test_the_states_of_the_link_stand_in_the_spec(section: str, table: dict[State, dict[Move, State]]) -> None:
    assert rows_of_table(section) == rendered(table)


@pytest.mark.parametrize(("section", "union"), [("4.1", frames.ClientFrame), ("4.2", frames.RelayFrame)])
def test_every_frame_stands_in_the_spec_with_all_its_fields(section: str, union: object) -> None:
    kinds: tuple[type[msgspec.Struct], ...] = union.__args__  # type: ignore[attr-defined]  # a union's members
    assert rows_of_table(section) == [described(kind) for kind in kinds]


def test_every_field_of_a_body_stands_in_the_spec_in_order() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", (SPEC / "bodies.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(str(at), field.name) for at, field in enumerate(msgspec.structs.fields(Body))]


def test_the_prekey_part_has_the_size_that_the_spec_draws() -> None:
    part = PrekeyPart(
        Identity(bytes(32), bytes(32)), bytes(64), 1, bytes(32), bytes(32), None, bytes(kem.ML_KEM_1024.public_bytes)
    )
    assert len(part.encode()) == stated_size("handshake.md", "### 2.2") == 1800


def test_the_header_has_the_sizes_that_the_spec_draws() -> None:
    fixed = Header(bytes(16), bytes(32), 0, 0, bytes(16)).encode()
    text = (SPEC / "ratchet.md").read_text(encoding="utf-8")
    assert f"{len(fixed):3}   KEM key" in text
    assert f"KEM key                {kem.ML_KEM_768.public_bytes}" in text
    assert f"KEM ciphertext         {kem.ML_KEM_768.ciphertext_bytes}" in text


def test_bundle_and_pair_have_the_sizes_that_the_spec_draws() -> None:
    name = Username("alice-agent")
    bundle = Bundle(
        RelayId(bytes(16)), name, bytes(32), bytes(32), bytes(64), VaultId(bytes(16)), 1, 2, 3, bytes(32), bytes(1568),
        bytes(64),
    )  # fmt: skip
    pair = OneTimePair(VaultId(bytes(16)), bytes(32), bytes(1568), bytes(64))
    identity = (SPEC / "identity.md").read_text(encoding="utf-8")
    assert "1 851 + n bytes" in identity
    assert len(bundle.encode()) == 1851 + len(name)
    assert len(pair.encode()) == stated_size("identity.md", "## 5.") == 1681


def test_every_section_that_the_core_cites_exists() -> None:
    core = Path(frames.__file__).parents[1] / "e2ee"
    for module, page in (
        ("handshake.py", "handshake.md"),
        ("ratchet.py", "ratchet.md"),
        ("session.py", "handshake.md"),
    ):
        headings = re.findall(r"^#+ ([\d.]+?)\.? ", (SPEC / page).read_text(encoding="utf-8"), re.MULTILINE)
        cited = re.findall(r"§([\d.]*\d)", (core / module).read_text(encoding="utf-8"))
        assert set(cited) <= set(headings), f"{module} cites a section that {page} lacks"


def test_every_link_between_the_pages_leads_somewhere() -> None:
    pages = [DOCS.parent / "README.md", DOCS.parent / "SECURITY.md", *DOCS.rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
