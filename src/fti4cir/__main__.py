"""The program: `fti4cir`, `python -m fti4cir`, and what `torchrun -m fti4cir` starts.

It takes care of Ctrl-C before anything else is imported, and of what is left to write when all is done.
"""

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command line that this process was given, and end the process."""
    _open_streams()
    # Ignored: a shell's background job.
    interruptible = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if interruptible:
        signal.signal(signal.SIGINT, _end)
    from .cli import READER_GONE, run

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status = run(sys.argv[1:])
    if interruptible:  # nothing is left to lose, and Python would report Ctrl-C with a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if status == READER_GONE:
        os._exit(status)  # Python would try once more to write what is left
    sys.exit(status)


def _open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr ones that lead nowhere.

    Otherwise the first files that it opens get their numbers, and what is meant for a person is written to them.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as it runs


def _end(number: int, frame: "FrameType | None") -> None:
    """End at once: while modules are imported, there is nothing to lose, and an exception would not end quietly."""
    os.write(2, b"fti4cir: error: Interrupted.\n")
    os._exit(128 + number)  # as shells have it


if __name__ == "__main__":
    main()
