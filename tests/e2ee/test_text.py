import unicodedata

import pytest

from aimessage.e2ee.text import decode_text, fold, require_clean, reveal
from aimessage.errors import EmptyMessage, NotUtf8, TextNotAllowed

ATTACKS = (
    "\U0001f600", "\U0001f468\u200d\U0001f469", "\U000e0041", "\u202e", "\u2066", "\ufe0f", "\u200b", "\ufeff", "\x00",
    "\x1b", "\x7f", "\x85", "\x9b", "\ue000", "\ufdd0", "\U0010ffff", "1\u20e3", "\U0001f1e9\U0001f1ea", "\U0001f3fb",
    "\u2028", "\u2029", "\u00a0", "\u3000", "\u2800", "\ufffc", "\ufffd", "\U0001d159", "\u00ad", "\u3164", "\u115f",
    "\r", "a\u200db", "a\u200cb", "\ud800", *"©®™‼⁉ℹ↔↕↖↗↘↙↩↪",
)  # fmt: skip
SCRIPTS = (
    "Hello, world! (1 + 2) = 3 #*", "Ünïcödé ß", "Ελληνικά", "Русский", "Հայերեն", "עברית", "العربية",
    "فارسی می\u200cخواهم",
    "हिन्दी", "क्\u200dष", "বাংলা", "ਪੰਜਾਬੀ", "ગુજરાતી", "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "ไทย", "ລາວ", "བོད་ཡིག",
    "မြန်မာ", "ქართული", "አማርኛ", "ខ្មែរ", "ᏣᎳᎩ", "日本語 カナ", "한국어", "中文。", "∀x∈ℝ → x² ≥ 0",
    "€ £ ¥ ₹", "Tiếng Việt",
)  # fmt: skip


@pytest.mark.parametrize("text", SCRIPTS)
def test_living_scripts_and_mathematics_stay_writable(text: str) -> None:
    clean = unicodedata.normalize("NFC", text)

    require_clean(clean)
    assert reveal(clean) == (clean, False)


@pytest.mark.parametrize("text", ATTACKS)
def test_what_deceives_the_eye_is_refused_and_shown_as_its_number(text: str) -> None:
    with pytest.raises(TextNotAllowed):
        require_clean("ok " + text)
    shown, flagged = reveal("ok " + text)
    assert flagged
    assert "\\u{" in shown


def test_the_refusal_names_index_and_code_point() -> None:
    with pytest.raises(TextNotAllowed) as refusal:
        require_clean("ab\x1bc")
    assert (refusal.value.index, refusal.value.code_point) == (2, 0x1B)


def test_four_marks_in_a_row_pass_and_five_do_not() -> None:
    require_clean("x" + "\u0323\u0300\u0301\u0302"[:4])
    with pytest.raises(TextNotAllowed):
        require_clean("x" + "\u0301" * 5)


def test_text_that_is_not_nfc_is_refused_and_folds_to_what_is_clean() -> None:
    with pytest.raises(TextNotAllowed):
        require_clean("e\u0301")
    require_clean(fold("e\u0301 © ™\ufe0f ‼ ↔"))


def test_octets_become_text_or_say_why_not() -> None:
    assert decode_text("día".encode()) == "día"
    with pytest.raises(NotUtf8):
        decode_text(b"\xff")
    with pytest.raises(EmptyMessage):
        decode_text(b" \n")
