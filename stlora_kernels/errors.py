"""The errors a user can cause, each with a one-line message: the thing, what was given, what was expected."""

import importlib
from types import ModuleType


class InputError(ValueError):
    """Something the user gave cannot be used."""


class MissingFileError(InputError):
    """A file is not where it was looked for; the message says where that was and how to get it."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra of this package brings it.

    Raises:
        MissingExtraError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed; it comes with: pip install 'stlora_kernels[{extra}]'"
        ) from error
