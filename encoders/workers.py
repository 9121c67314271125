"""What a process begins with that makes data for another one, such as a worker of a `torch.utils.data.DataLoader`."""

import os
import signal
import threading
import time

LOOK_SECONDS = 1.0
"""Between two looks at whether the parent still lives."""


def begin_worker(_number: int = 0) -> None:
    """Ignore Ctrl-C, and end when the parent does.

    Ctrl-C reaches every process of a terminal; the parent ends its workers, they need not complain.

    A worker of torch notices by itself that its parent was killed, but then waits for somebody to read what it has
    made, with which it fills a pipe whose other end it holds too: it would stay for ever, with its memory and with the
    terminal or the pipe that the command was started in.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)
