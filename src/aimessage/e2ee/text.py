"""Profile AIM-TEXT-1: text that means what it looks like, checked at both ends.

A category rule admits assigned letters, marks, numbers, punctuation and symbols; tables then take out what draws a
picture or nothing. The category is the running Python's; a code point that it does not know yet is refused.
Transparent letters (Joining_Type=T) of RFC 5892 A.1 are taken to be the nonspacing and enclosing marks.
"""

import unicodedata

from aimessage.e2ee.unicode_tables import DEFAULT_IGNORABLE, JOINS_BEHIND, JOINS_IN_FRONT, PICTORIAL
from aimessage.errors import EmptyMessage, NotUtf8, TextNotAllowed

__all__ = ["MARKS_IN_A_ROW", "decode_text", "fold", "needed_joiners", "require_clean", "reveal"]

MARKS_IN_A_ROW = 4
"""The most nonspacing marks that may follow each other."""
_WHITE = frozenset("\n\t ")
_JOINERS = frozenset("\u200c\u200d")
_NON_JOINER = "\u200c"
_VIRAMA = 9
_LOOK_LIKE_NOTHING = frozenset({0x2800, 0xFFFC, 0xFFFD, 0x1D159, 0x20E3})
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
_FOLDS = {
    "©": "(c)", "®": "(r)", "™": "(tm)", "‼": "!!", "⁉": "!?", "ℹ": "i", "↔": "<->", "↕": "^v",
    "↖": "<-^", "↗": "^->", "↘": "v->", "↙": "<-v", "↩": "<-", "↪": "->",
}  # fmt: skip


def require_clean(text: str) -> None:
    """Return nothing if *text* keeps to AIM-TEXT-1.

    Raises TextNotAllowed: with the index of the first code point that the profile refuses, or the first that NFC
    would change.
    """
    for index in _refusals(text):
        point = ord(text[index])
        raise TextNotAllowed(
            f"U+{point:04X} at index {index} is not allowed in a message",
            index=index,
            code_point=point,
            hint="remove it, or pass --fold for signs such as (c), or send the bytes as base64",
        )
    _require_nfc(text)


def fold(text: str) -> str:
    """Return *text* in NFC, with the signs that have an ASCII spelling replaced by it; the rest stays to be refused."""
    for sign, spelling in _FOLDS.items():
        text = text.replace(sign + "\ufe0f", spelling).replace(sign, spelling)
    return unicodedata.normalize("NFC", text)


def reveal(text: str) -> tuple[str, bool]:
    """Return *text* for display, each refused code point as `\\u{…}`, and whether anything breaks the profile."""
    refused = set(_refusals(text))
    if not refused:
        return text, not unicodedata.is_normalized("NFC", text)
    shown = "".join(f"\\u{{{ord(c):X}}}" if index in refused else c for index, c in enumerate(text))
    return shown, True


def needed_joiners(text: str) -> frozenset[int]:
    """Return the indexes of the joiners that the profile allows: where a script cannot be written without."""
    return frozenset(at for at, character in enumerate(text) if character in _JOINERS and _joiner_allowed(text, at))


def decode_text(octets: bytes) -> str:
    """Return *octets* as text.

    Raises NotUtf8: not UTF-8. EmptyMessage: nothing, or nothing but white space.
    """
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise NotUtf8("the message is not UTF-8 text") from None
    if not text.strip():
        raise EmptyMessage("the message is empty")
    return text


def _refusals(text: str) -> list[int]:
    if text.isascii() and (text.isprintable() or text.translate({10: None, 9: None}).isprintable()):
        return []
    found: list[int] = []
    marks = 0
    for index, character in enumerate(text):
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks > MARKS_IN_A_ROW or not _allowed(text, index):
            found.append(index)
    return found


def _allowed(text: str, index: int) -> bool:
    character = text[index]
    if character in _WHITE:
        return True
    if character in _JOINERS:
        return _joiner_allowed(text, index)
    point = ord(character)
    if point in PICTORIAL.points or point in DEFAULT_IGNORABLE.points or point in _LOOK_LIKE_NOTHING:
        return False
    return unicodedata.category(character) not in _REFUSED_CATEGORIES


def _joiner_allowed(text: str, index: int) -> bool:
    # RFC 5892 A.1 and A.2: either joiner behind a virama; a non-joiner also between two letters that would join.
    if index and unicodedata.combining(text[index - 1]) == _VIRAMA:
        return True
    if text[index] != _NON_JOINER:
        return False
    return _neighbour(text, index, -1) in JOINS_BEHIND.points and _neighbour(text, index, 1) in JOINS_IN_FRONT.points


def _neighbour(text: str, index: int, step: int) -> int:
    for _ in range(MARKS_IN_A_ROW + 1):  # bounded: a longer run of marks is refused anyway
        index += step
        if not 0 <= index < len(text):
            return -1
        if unicodedata.category(text[index]) not in ("Mn", "Me"):
            return ord(text[index])
    return -1


def _require_nfc(text: str) -> None:
    if unicodedata.is_normalized("NFC", text):
        return
    pairs = enumerate(zip(text, unicodedata.normalize("NFC", text) + "\0", strict=False))
    index = next((at for at, (given, wanted) in pairs if given != wanted), len(text) - 1)
    raise TextNotAllowed(
        f"the text is not in Unicode normal form C from index {index} on",
        index=index,
        code_point=ord(text[index]),
        hint="normalise it to NFC, or pass --fold",
    )
