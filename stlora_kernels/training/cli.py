"""How every command ends: its errors become one line and an exit code."""

import sys
from collections.abc import Callable, Sequence

from stlora_kernels.errors import InputError, MissingExtraError


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Call a command and return its exit code.

    0: done; 1: the computation failed; 2: something the user gave cannot be used; 130: stopped by Ctrl-C.
    Whatever is wrong is said on stderr in one line.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except (InputError, MissingExtraError) as error:
        return _say(f"error: {error}", 2)
    except (ArithmeticError, OSError) as error:  # diverged; a full disk
        return _say(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        return _say(f"stopped: {stop}" if str(stop) else "stopped", 130)
    return 0


def _say(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    return code
