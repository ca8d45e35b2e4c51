"""`aimessage schema`: the JSON Schemas of everything that `--json` prints, as they ship with the package."""

import json
from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.errors import NotFound

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["load_schema", "schema", "schema_names"]


@click.command(short_help="Print the JSON Schemas of what --json prints.")
@click.argument("name", required=False, metavar="[NAME]")
@shared_options
def schema(shared: Shared, name: str | None) -> None:
    """List the kinds of objects that --json prints, or print the schema of one.

    \b
      aimessage schema
      aimessage schema message

    Each object's "type" names its schema; errors, which go to stderr, have no type and are "error". Fields are only
    ever added.
    """
    if name is None:
        for each in schema_names():
            told = str(load_schema(each)["description"])
            shared.screen.show({"v": 1, "type": "schema", "name": each, "description": told}, f"{each}: {told}")
        return
    if name not in schema_names():
        raise NotFound("there is no such schema", hint="aimessage schema")
    shared.screen.verbatim(json.dumps(load_schema(name), indent=2))


def schema_names() -> list[str]:
    """Return the names of all schemas."""
    return sorted(each.name.removesuffix(".json") for each in _place().iterdir() if each.name.endswith(".json"))


def load_schema(name: str) -> dict[str, object]:
    """Return one schema (JSON Schema, draft 2020-12)."""
    found: dict[str, object] = json.loads((_place() / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _place() -> "Traversable":
    from importlib.resources import files

    return files("aimessage.cli") / "schemas"
