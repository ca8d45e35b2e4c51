"""What is behind a failure that task groups have wrapped, and which failure no relay outlives."""

from typing import TypeVar

__all__ = ["behind"]

_ErrorT = TypeVar("_ErrorT", bound=Exception)


def behind(error: BaseException, kind: type[_ErrorT]) -> _ErrorT | None:
    """Return the first error of *kind* in *error*, which may be a group of groups; None if there is none."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            if found := behind(inner, kind):
                return found
    return None
