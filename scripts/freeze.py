"""Write golden files for messages and functions that have none yet; what is there is never changed."""

import runpy
import sys
from pathlib import Path

import msgspec

from hostler.valkeyio.library_text import NAME, shipped

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"


def main() -> int:
    """Freeze what is new and name it."""
    target = GOLDEN / "v1"
    target.mkdir(exist_ok=True)
    texts = {f"{NAME}.lua": shipped().text.encode()}
    for name, value in runpy.run_path(str(GOLDEN / "samples.py"))["SAMPLES"].items():
        texts[f"{name}.json"] = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    for name, text in texts.items():
        path = target / name
        if not path.exists():
            path.write_bytes(text)
            print(f"froze {path.relative_to(GOLDEN.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
