"""Mistakes on the page: a sentence to whoever made one, never a traceback and never a dead page."""

import errno
import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from app.exits import explain, is_out_of_memory

Inputs = ParamSpec("Inputs")
Outputs = TypeVar("Outputs")

_log = logging.getLogger(__name__)

_BY_NUMBER = {
    errno.ENOSPC: "The disk of this server is full; try again later, or with fewer photos.",
    errno.EDQUOT: "The disk of this server is full; try again later, or with fewer photos.",
    errno.EMFILE: "Too many files are open on this server; try again in a minute.",
    errno.ENFILE: "Too many files are open on this server; try again in a minute.",
}


def told(handler: Callable[Inputs, Outputs]) -> Callable[Inputs, Outputs]:
    """An event handler whose errors become messages on the visitor's page.

    What a visitor can do something about is said as `sentence` says it. Anything else is a fault of the program: its
    traceback goes to the server's log, and the page says no more than that.
    """

    @functools.wraps(handler)
    def guarded(*arguments: Inputs.args, **options: Inputs.kwargs) -> Outputs:
        try:
            return handler(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            text = sentence(error)
            if text is not None:
                raise gr.Error(text, title="That does not work", print_exception=False) from None
            _log.error("An event handler failed.", exc_info=error)
            raise gr.Error(
                "Nothing that you did; the server's log says what went wrong.",
                title="dictsplat has a fault",
                print_exception=False,
            ) from None

    return guarded


def sentence(error: BaseException) -> str | None:
    """As `app.exits.explain`, to somebody who has no options to change and must not see places on the server."""
    if is_out_of_memory(error):
        return "There is not enough memory for this; try again later, or with smaller or fewer photos or tiles."
    if isinstance(error, OSError) and error.strerror:
        known = _BY_NUMBER.get(error.errno or 0)
        return known or f"A file on this server cannot be used: {error.strerror}."
    return explain(error)
