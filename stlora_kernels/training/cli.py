"""How every command ends: its errors become one line and an exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from stlora_kernels.errors import InputError, MissingExtraError

# How torch says, in a plain RuntimeError, that there is no memory for a tensor of these sizes.
NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "Storage size calculation overflowed")


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Call a command and return its exit code.

    0: done; 1: the computation failed; 2: something the user gave cannot be used; 130: stopped by Ctrl-C.
    Whatever is wrong is said on stderr in one line. Any other error is a bug and keeps its traceback.
    """
    try:
        main(sys.argv[1:] if argv is None else argv)
    except (InputError, MissingExtraError) as error:
        return _say(f"error: {error}", 2)
    except (MemoryError, OverflowError) as error:
        return _say(f"error: a size is too large for the memory here: {error or type(error).__name__}", 2)
    except RuntimeError as error:
        if not any(words in str(error) for words in NO_MEMORY):
            raise
        return _say(f"error: a size is too large for the memory here: {str(error).splitlines()[0]}", 2)
    except (ArithmeticError, OSError) as error:  # diverged; a full disk
        return _say(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        return _say(f"stopped: {stop}" if str(stop) else "stopped", 130)
    return 0


def leave(code: int) -> NoReturn:
    """End the process.

    One of ``torchrun``'s ends without Python's shutdown: gloo's threads outlive their process group, and one that lets
    go of a tensor while Python shuts down aborts the whole process ("terminate called without an active exception").
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _say(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")  # of torchrun's processes, each of which meets what the user gave
    if code != 2 or rank == "0":
        where = f"rank {rank}: " if rank != "0" else ""
        print(where + " ".join(message.split()), file=sys.stderr, flush=True)
    return code
