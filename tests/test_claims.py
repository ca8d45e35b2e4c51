"""What the documents on security say is shown by a test, is: each path and each test that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def claims(page: str) -> list[tuple[str, str]]:
    return _NAMED.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", ["docs/threat-model.md", "docs/operate.md", "docs/attacks.md"])
def test_each_test_that_a_page_names_exists(page: str) -> None:
    missing = [
        f"{path}::{test}"
        for path, test in claims(page)
        if not (ROOT / path).is_file() or (test and f"def {test}(" not in (ROOT / path).read_text())
    ]

    assert missing == []


def test_every_guarantee_of_the_threat_model_names_what_shows_it() -> None:
    page = (ROOT / "docs/threat-model.md").read_text()
    tables = page[page.index("## Adversaries") : page.index("## What is not promised")]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.startswith("| capability")]
    unshown = [row for row in rows if not _NAMED.search(row) and "**nothing**" not in row]

    assert len(rows) > 25
    assert unshown == []
