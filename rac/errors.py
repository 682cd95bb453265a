"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and what to do.

    The command line prints it and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the error's class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
