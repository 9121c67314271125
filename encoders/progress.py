"""How long work tells its caller how far it is, without knowing about terminals or browsers."""

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""Called as ``report(done, total, message)``; ``total`` may grow, ``message`` is one short line."""


def silent(done: int, total: int, message: str) -> None:
    """A :data:`Report` that says nothing."""
