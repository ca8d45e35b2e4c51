"""How much work a regular expression is: a matcher that walks the parse tree of `re` and counts each comparison."""

import re
from re import _constants as op  # type: ignore[attr-defined]  # the standard library's own parser has no stubs
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

__all__ = ["count_steps"]


def count_steps(pattern: str, text: str, found: list[bool] | None = None) -> int:
    """Return how many characters a search for *pattern* in *text* compares; a match is noted in *found*."""
    machine = _Machine(text, list(parser.parse(pattern)))
    for start in range(len(text) + 1):
        if machine.match(machine.program, start, ignore_case=False) is not None:
            if found is not None:
                found.append(True)
            break
    return machine.steps


class _Machine:
    """It knows what the rules use: literals, sets, groups, alternatives, possessive repeats, and looks around.

    Nothing is tried twice after a repeat, because all of them are possessive or of a fixed count: others are errors.
    """

    def __init__(self, text: str, program: list[Any]) -> None:
        self.text, self.program, self.steps = text, program, 0

    def match(self, program: list[Any], at: int, *, ignore_case: bool) -> int | None:
        """Return where *program* ends, if it fits from *at* on."""
        for position, (kind, value) in enumerate(program):
            if kind is op.BRANCH:
                rest = program[position + 1 :]
                ends = (self.match([*each, *rest], at, ignore_case=ignore_case) for each in value[1])
                return next((end for end in ends if end is not None), None)
            if kind is op.SUBPATTERN:
                inner = [*value[3], *program[position + 1 :]]
                return self.match(inner, at, ignore_case=ignore_case or bool(value[1] & re.IGNORECASE))
            end = self._one((kind, value), at, ignore_case)
            if end is None:
                return None
            at = end
        return at

    def _one(self, node: tuple[Any, Any], at: int, ignore_case: bool) -> int | None:
        kind, value = node
        if kind in (op.ASSERT_NOT, op.ASSERT):
            direction, inner = value
            place = at - 1 if direction < 0 else at
            fits = place >= 0 and self.match(list(inner), place, ignore_case=ignore_case) is not None
            return at if fits == (kind is op.ASSERT) else None
        if kind in (op.POSSESSIVE_REPEAT, op.MAX_REPEAT):
            least, most, inner = value
            assert kind is op.POSSESSIVE_REPEAT or least == most or most == 1, "this repeat would backtrack"
            count = 0
            while count < most and (end := self.match(list(inner), at, ignore_case=ignore_case)) is not None:
                at, count = end, count + 1
            return at if count >= least else None
        self.steps += 1
        return at + 1 if at < len(self.text) and self._fits(node, self.text[at], ignore_case) else None

    def _fits(self, node: tuple[Any, Any], character: str, ignore_case: bool) -> bool:
        kind, value = node
        if kind is op.LITERAL:
            letter = chr(value)
            return character.lower() == letter.lower() if ignore_case else character == letter
        assert kind is op.IN, f"this matcher does not know {kind}"
        return any(_is_in(each, ord(character)) for each in value)


def _is_in(item: tuple[Any, Any], code: int) -> bool:
    kind, value = item
    return bool(value == code if kind is op.LITERAL else value[0] <= code <= value[1])
