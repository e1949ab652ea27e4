"""`attribug`, and `python -m attribug`."""

import contextlib
import io
import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130
PATIENCE = 3.0  # seconds for ending in an orderly way


def main() -> None:
    """Runs the command line. Whatever an interrupt breaks, an import half done included, ends in one line and 130."""
    interrupts: list[int] = []

    def interrupt(number: int, _: object) -> None:
        if not interrupts and hasattr(
            signal, "setitimer"
        ):  # in case somebody swallows the exception, or waits for long
            signal.signal(signal.SIGALRM, lambda *_: _stop())
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a job that its shell keeps from interrupts
        signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of another encoding loses a sign, not the run
    try:
        from attribug.terminal.command_line import main as command_line

        code, message = command_line()
    except BaseException:
        if not interrupts:
            raise
    if interrupts:
        _stop()
    if message:
        print(f"attribug: {_line(message)}", file=sys.stderr)
    sys.exit(code)


def _stop() -> NoReturn:
    """Ends an interrupted run; waits for no thread: workers end with their parent."""
    if hasattr(signal, "setitimer"):  # of POSIX
        signal.setitimer(signal.ITIMER_REAL, 0)
    with contextlib.suppress(Exception):  # a closed or full stderr, or one that this interrupts
        print("attribug: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


def _line(message: str) -> str:
    """A message in one line that a terminal shows as it is, whatever the names and paths in it."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(message.split()))


if __name__ == "__main__":
    main()
