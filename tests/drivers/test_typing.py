"""The package is typed for those who use it: what the surface gives is what it says, and a wrong use is refused."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLE = Path(__file__).parent / "typing" / "public.py"


def checked(source: Path, cache: Path) -> "subprocess.CompletedProcess[str]":
    """Run mypy as a user of the package would, strictly."""
    strictly = ["--strict", "--warn-unused-ignores", "--follow-imports=silent", "--config-file", os.devnull]
    command = [sys.executable, "-m", "mypy", *strictly, "--cache-dir", str(cache), str(source)]
    environ = os.environ | {"MYPYPATH": str(ROOT / "src")}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environ, timeout=300)


def test_the_public_surface_has_the_types_that_it_says(tmp_path: Path) -> None:
    assert files("aimessage").joinpath("py.typed").is_file()
    said = checked(SAMPLE, tmp_path / "cache")
    assert said.returncode == 0, said.stdout
    # The test can fail: without its comments, each wrong use is an error of the kind that the comment names.
    wrong = tmp_path / "wrong.py"
    wrong.write_text(SAMPLE.read_text().replace("  # type: ignore", "  # was: ignore"))
    said = checked(wrong, tmp_path / "cache")
    assert said.stdout.count(": error: ") == SAMPLE.read_text().count("# type: ignore") > 5
