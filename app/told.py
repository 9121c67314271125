"""Mistakes on the page: a sentence to whoever made one, never a traceback and never a dead page."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from app.exits import explain

Inputs = ParamSpec("Inputs")
Outputs = TypeVar("Outputs")


def told(handler: Callable[Inputs, Outputs]) -> Callable[Inputs, Outputs]:
    """An event handler whose expected errors (`app.exits.explain`) become messages on the visitor's page."""

    @functools.wraps(handler)
    def guarded(*arguments: Inputs.args, **options: Inputs.kwargs) -> Outputs:
        try:
            return handler(*arguments, **options)
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            raise gr.Error(sentence, title="That does not work", print_exception=False) from None

    return guarded
