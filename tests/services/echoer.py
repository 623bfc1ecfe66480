"""A command that knows nothing of Hostler: it reads jobs as lines of JSON and does what their payload says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def tell(**line: Any) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def mark(name: str) -> None:
    """Leave a trace of what was begun, for whoever counts."""
    folder = os.environ.get("TRACES")
    if folder:
        with Path(folder, name).open("a") as file:
            file.write(f"{os.getpid()}\n")


def moods() -> dict[str, Any]:
    try:
        return json.loads(Path(os.environ["MOODS"]).read_text())
    except (KeyError, OSError):
        return {}


def work(job: dict[str, Any]) -> None:
    asked, name = {**moods(), **job["payload"]}, job["job"]
    mark("begun")
    for step in range(asked.get("steps", 4)):
        tell(type="progress", fraction=step / 4 if step < 4 else 1, stage="thinking", text=asked.get("text"))
        if asked.get("hang") or asked.get("slow"):
            signal.sigtimedwait([signal.SIGUSR1], 60 if asked.get("hang") else asked["slow"])
        if asked.get("die"):
            sys.stderr.write("cannot go on\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    if asked.get("child"):
        subprocess.Popen([sys.executable, "-I", "-c", CHILD, os.environ["TRACES"]])
    if asked.get("linger"):
        signal.sigtimedwait([signal.SIGUSR1], 60)
    for line in asked.get("raw", ()):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if "error" in asked:
        tell(type="error", job=name, **asked["error"])
        return
    if "result" in asked:
        tell(type="result", job=name, result=asked["result"])
    elif asked.get("large"):
        tell(type="result", job=name, result={"text": "ü" * asked["large"]})
    elif not asked.get("mute"):
        known = {key: value for key, value in os.environ.items() if key != "TRACES"}
        tell(type="result", job=name, result={"pid": os.getpid(), "cwd": str(Path.cwd()), "env": known, "job": job})
    sys.stderr.write(asked.get("stderr", ""))
    if "exit" in asked:
        sys.stderr.flush()
        sys.exit(asked["exit"])


CHILD = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + "/children", "a").write(str(os.getpid()) + chr(10))
signal.pause()
"""

if __name__ == "__main__":
    if sys.argv[1:] == ["stubborn"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.argv[1:] == ["ready"]:
        tell(type="ready")
    for text in sys.stdin:
        work(json.loads(text))
