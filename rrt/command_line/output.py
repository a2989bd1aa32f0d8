"""What a command printed, handed over before it ends."""

import errno
import os
import select
import sys


def flush_output(failed: BaseException | None = None) -> None:
    """Hand over what was printed. The process ends with status 141 where nobody reads it any longer (`| head -1`), as
    the system ends programs that do not look; with one line and status 1 where it cannot be written (a full disk).

    failed: what the command ended with, which may be what printing raised and not worth a word of its own.
    """
    try:
        sys.stdout.flush()
        if isinstance(failed, BrokenPipeError) and _nobody_reads():
            raise failed
    except OSError as error:
        # What is left would be tried, and told of, once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(141)
        print(f"error: standard output: {error.strerror}; make room or print elsewhere", file=sys.stderr)
        sys.exit(1)


def _nobody_reads() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
