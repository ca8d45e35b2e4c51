"""No field of a class bears the name of a type that the same class annotates with.

From Python 3.14 on, annotations are looked up when they are first asked for, in the class itself first: beside a field
`bytes`, the annotation `bytes` would mean that field.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import aimessage

SOURCES = Path(aimessage.__file__).parent


def mistaken(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            names = {line.target.id for line in fields if isinstance(line.target, ast.Name)}
            words = {word.id for line in fields for word in ast.walk(line.annotation) if isinstance(word, ast.Name)}
            yield from (f"{node.name}.{name}" for name in sorted(names & words))


def test_a_field_beside_its_namesake_is_found() -> None:
    assert list(mistaken(ast.parse("class Odd:\n    digest: bytes\n    bytes: int\n"))) == ["Odd.bytes"]


def test_annotations_mean_on_every_python_what_they_say() -> None:
    found = {str(path): list(mistaken(ast.parse(path.read_text()))) for path in SOURCES.rglob("*.py")}

    assert len(found) > 50
    assert {path: fields for path, fields in found.items() if fields} == {}
