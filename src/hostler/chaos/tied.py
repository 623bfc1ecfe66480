"""How a process is started so that it cannot outlive the one that started it, stopped or not."""

import shutil
from typing import Final

_PROGRAM: Final = shutil.which("setpriv")
TIED: Final[tuple[str, ...]] = (_PROGRAM, "--pdeathsig", "KILL", "--") if _PROGRAM else ()
"""Words before a command line: the kernel then kills the process when its parent ends. Empty where there are none."""
