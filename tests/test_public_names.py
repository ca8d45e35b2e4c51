"""What a module exports has a docstring, and every module says what it exports."""

import importlib
import inspect
import pkgutil

import pytest

import aimessage

MODULES = sorted(module.name for module in pkgutil.walk_packages(aimessage.__path__, "aimessage."))


@pytest.mark.parametrize("name", MODULES)
def test_each_exported_name_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for exported in getattr(module, "__all__", []):
        value = getattr(module, exported)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{exported} has no docstring"


def test_every_module_that_defines_something_lists_it() -> None:
    silent = [
        name
        for name in MODULES
        if not hasattr(module := importlib.import_module(name), "__all__")
        and any(
            getattr(value, "__module__", None) == name and not key.startswith("_")
            for key, value in vars(module).items()
        )
    ]
    assert silent == []
