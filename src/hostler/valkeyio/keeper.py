"""Guard of one embedded server: runs as a tiny program of its own and ends the server when nobody is left.

It imports the standard library only, so that it starts in milliseconds and stays small. It is the parent
of the server, in a session of its own, and no child of whoever started it. Once a second it looks whether
anybody still holds a shared lock on the file of attachments; nobody does any more when all users were
killed, since a living last user stops the server itself. Should the keeper be killed, the server goes on,
is joined as before, and is stopped by the last to leave.

    keeper.py SERVER_LOCK_FD ATTACHED_FILE START_FILE GRACE_S PROGRAM ARGUMENT...
"""

import fcntl
import os
import subprocess
import sys
import threading

_LOOK_EVERY_S = 1.0


def main(arguments: list[str]) -> int:
    """Start the server, detach, and return the server's exit status when it has ended."""
    if os.fork():
        return 0
    server_lock, attached, start, grace = int(arguments[0]), arguments[1], arguments[2], float(arguments[3])
    server = subprocess.Popen(  # noqa: S603 - the program and its arguments come from `embedded.py` alone
        arguments[4:], stdin=subprocess.DEVNULL, pass_fds=(server_lock,)
    )
    os.close(server_lock)
    threading.Thread(target=_guard, args=(server, attached, start, grace), daemon=True).start()
    return server.wait()


def _guard(server: "subprocess.Popen[bytes]", attached: str, start: str, grace: float) -> None:
    """End the server once nobody has been attached for `grace` seconds; the locks are kept until it is gone."""
    users = os.open(attached, os.O_RDWR | os.O_CLOEXEC)
    starters = os.open(start, os.O_RDWR | os.O_CLOEXEC)
    pause = threading.Event()
    alone = 0.0
    while True:
        pause.wait(_LOOK_EVERY_S)
        # Attachments are touched under `start` only, so that a look never stands in anybody's way.
        if not _try_lock(starters):
            alone = 0.0
            continue
        alone = alone + _LOOK_EVERY_S if _try_lock(users) else 0.0
        if alone >= grace:
            server.terminate()
            return
        fcntl.flock(users, fcntl.LOCK_UN)
        fcntl.flock(starters, fcntl.LOCK_UN)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
