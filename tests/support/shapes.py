"""What `--json` prints, held against the schemas that ship with the package, more strictly than a reader would."""

import json

from jsonschema import Draft202012Validator

from aimessage.cli.schema import load_schema, schema_names
from support.commands import Outcome

__all__ = ["kinds_of", "require_shape"]


def require_shape(shape: dict[str, object], kind: str | None = None) -> str:
    """Validate one object and return its kind; a field that its schema does not know fails, too."""
    kind = kind or str(shape["type"])
    assert kind in schema_names(), f"{kind} has no schema"
    schema = load_schema(kind)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator({**schema, "additionalProperties": False}).validate(shape)
    return kind


def kinds_of(outcome: Outcome) -> set[str]:
    """Validate every line of a finished command, both streams, and return the kinds that it printed."""
    kinds = {require_shape(shape) for shape in outcome.objects()}
    for line in outcome.talk.splitlines():
        shape = json.loads(line)
        kinds.add(require_shape(shape, "notice" if "notice" in shape else "error"))
    return kinds
