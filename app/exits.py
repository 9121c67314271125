"""How a command ends: exit status and, when something went wrong, one sentence on stderr."""

import errno
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import NoReturn

EXIT_FAULT = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 128 + signal.SIGTERM

_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "Insufficient memory")


def guarded(command: Callable[[], object], debug: bool = False) -> int:
    """Run a command; print what went wrong in one sentence (with ``debug``, a traceback before it).

    SIGTERM, which service managers, containers and ``timeout`` send, ends it as Ctrl-C does: what was begun is cleaned
    up, and processes that were started end.

    Returns:
        The exit status: 0, `EXIT_INPUT`, `EXIT_FAULT`, `EXIT_INTERRUPTED` or `EXIT_TERMINATED`.
    """
    try:
        with _ended_by_sigterm():
            return _status(command, debug)
    except SystemExit:  # the signal came while the end was told
        return EXIT_TERMINATED


def _status(command: Callable[[], object], debug: bool) -> int:
    try:
        command()
        return 0
    except KeyboardInterrupt:
        return _stopped(EXIT_INTERRUPTED)
    except SystemExit as stop:
        # typer turns Ctrl-C into this status, and usage errors, which it prints itself, into status 2.
        return _stopped(stop.code) if stop.code in _STOPPED else int(stop.code or 0)
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


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, which nothing takes for an error that it could go on after."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _end(_number: int, _frame: object) -> NoReturn:
    # Whoever ends a service ends its workers as well: that one of them is gone is no fault any more.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    sys.exit(EXIT_TERMINATED)


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


_STOPPED = {EXIT_INTERRUPTED: "Interrupted", EXIT_TERMINATED: "Told to stop (SIGTERM)"}


def _stopped(status: int) -> int:
    _say(f"{_STOPPED[status]}; run the same command again to continue.")
    return status


def _say(sentence: str) -> None:
    print(" ".join(sentence.split()), file=sys.stderr)
