"""The program: `fti4cir`, `python -m fti4cir`, and what `torchrun -m fti4cir` starts.

It handles Ctrl-C before anything else is imported, and output that is still unwritten at the end.
"""

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command line of this process, then end the process."""
    _open_streams()
    # A shell ignores Ctrl-C for its background jobs.
    interruptible = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if interruptible:
        signal.signal(signal.SIGINT, _end)
    from .cli import READER_GONE, run

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = run(sys.argv[1:])
    if interruptible:  # the work is done, and Python would report Ctrl-C with a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if status == READER_GONE:
        os._exit(status)  # Python would try again to write the rest
    sys.exit(status)


def _open_streams() -> None:
    """Open `os.devnull` in place of stdin, stdout or stderr if the process was started without them.

    Otherwise the first files that it opens would get their numbers, and messages would be written into these files.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as it runs


def _end(number: int, frame: "FrameType | None") -> None:
    """End at once: during imports no work can be lost, and an exception would show a traceback."""
    os.write(2, b"fti4cir: error: Interrupted.\n")
    os._exit(128 + number)  # the usual exit status of shells


if __name__ == "__main__":
    main()
