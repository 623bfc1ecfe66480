"""Write a golden file for every sample message that has none yet; a file that is there is never changed."""

import runpy
import sys
from pathlib import Path

import msgspec

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def main() -> int:
    """Freeze what is new and name it."""
    target = GOLDEN / "v1"
    target.mkdir(exist_ok=True)
    for name, value in runpy.run_path(str(GOLDEN / "samples.py"))["SAMPLES"].items():
        path = target / f"{name}.json"
        if not path.exists():
            path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
            print(f"froze {path.relative_to(GOLDEN.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
