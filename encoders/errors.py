"""The one exception that means "the input is wrong, the program is fine"."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence that names the file or option, says what is wrong with it and what to
    do. The command line prints it without a traceback and exits with status 2.
    """
