from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.cli.inputs import parse_duration, parse_json
from aimessage.cli.octets import MAX_INPUT_BYTES, read_file
from aimessage.errors import BadValue, TooLarge


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1h", 3600), ("7d", 604800), ("500ms", 0.5), ("1.5s", 1.5), ("0", 0)],
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1", "1w", "s", "1 s", "1e9", "٣", "999d", "nan", "1h30m", "30s\n"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_duration(text)


@given(st.text())
def test_any_text_is_a_duration_or_a_bad_value(text: str) -> None:
    with suppress(BadValue):
        assert parse_duration(text) >= timedelta(0)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "{'a': 1}", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_json(text)


def test_a_file_is_read_byte_for_byte_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"a\r\n\xff" * (MAX_INPUT_BYTES // 4))

    assert read_file(str(path)) == path.read_bytes()


def test_one_byte_over_the_limit_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"a" * (MAX_INPUT_BYTES + 1))

    with pytest.raises(TooLarge):
        read_file(str(path))


def test_a_file_that_is_not_there_is_a_bad_value(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="no such file"):
        read_file(str(tmp_path / "nothing"))
    with pytest.raises(BadValue, match="is a directory"):
        read_file(str(tmp_path))
