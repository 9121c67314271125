"""How a command ends: exit status and, when something went wrong, one sentence on stderr."""

import errno
import sys
import traceback
from collections.abc import Callable

EXIT_FAULT = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130

_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "Insufficient memory")


def guarded(command: Callable[[], object], debug: bool = False) -> int:
    """Run a command; print what went wrong in one sentence (with ``debug``, a traceback before it).

    Returns:
        The exit status: 0, `EXIT_INPUT`, `EXIT_FAULT` or `EXIT_INTERRUPTED`.
    """
    try:
        command()
        return 0
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        # typer turns Ctrl-C into this status, and usage errors, which it prints itself, into status 2.
        return _interrupted() if stop.code == EXIT_INTERRUPTED else int(stop.code or 0)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        sentence = explain(error)
        if sentence is not None:
            _say(sentence)
            return EXIT_INPUT
        if not debug:
            _say(f"dictsplat has a fault: {type(error).__name__}: {error} (add --debug to see where).")
        return EXIT_FAULT


def explain(error: BaseException) -> str | None:
    """One sentence for what a person can do something about; None for faults of the program."""
    from encoders.errors import InputError  # the package imports torch, which --help need not wait for

    text = str(error)
    if isinstance(error, InputError):
        return text
    if is_out_of_memory(error):
        return "There is not enough memory for this; use a smaller --scale (--size, --batch) or close other programs."
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        return f"A file{where} cannot be used: {error.strerror}."
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the processor or of a GPU, did not suffice."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # OpenCV's errors are of a class of their own, torch's are RuntimeErrors.
    wording = isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] == "cv2"
    return isinstance(error, MemoryError) or (wording and any(words in str(error) for words in _NO_MEMORY))


def _interrupted() -> int:
    _say("Interrupted; run the same command again to continue.")
    return EXIT_INTERRUPTED


def _say(sentence: str) -> None:
    print(" ".join(sentence.split()), file=sys.stderr)
