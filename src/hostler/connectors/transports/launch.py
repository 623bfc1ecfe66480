"""Becomes a command: sets its limits, ties it to whoever started it, and is replaced by it.

Run as a file by `transports/process.py`, with nothing but the standard library: what is set here holds before the
command's first instruction, and no code of ours runs between a fork and an exec in a process with threads.
"""

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CANNOT_RUN = 127


def main() -> None:
    """Read `{"limits": {name: [soft, hard]}, "parent": pid}` and the command from the arguments; never returns."""
    told, command = json.loads(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != told["parent"]:
        os._exit(_CANNOT_RUN)  # whoever wanted it is gone already
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    for name, (soft, hard) in told["limits"].items():
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        allowed = (soft, hard) if most == resource.RLIM_INFINITY else (min(soft, most), min(hard, most))
        resource.setrlimit(kind, allowed)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the operator's own command, without a shell
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_CANNOT_RUN)


if __name__ == "__main__":
    main()
