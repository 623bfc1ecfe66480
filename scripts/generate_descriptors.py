"""Write `descriptor.py` beside each `.proto` file, or prove with `--check` that it is fresh."""

import base64
import importlib
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROTOC: Any = importlib.import_module("grpc_tools.protoc")
ROOM = ROOT / "src/hostler/connectors"


def descriptor(proto: Path) -> str:
    """Return the module that describes the messages of a `.proto` file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        if PROTOC.main(["protoc", f"-I{proto.parent}", f"--descriptor_set_out={out}", proto.name]):
            sys.exit(f"{proto.relative_to(ROOT)} does not compile")
        lines = textwrap.wrap(base64.b64encode(out.read_bytes()).decode(), 116)
    text = "\n".join(lines)
    return (
        f'"""Generated from {proto.name} by scripts/generate_descriptors.py; edit that file and run `make docs`."""\n\n'
        "from typing import Final\n\n"
        f'{proto.stem.upper()}: Final = """\n{text}\n"""\n'
        '"""A `FileDescriptorSet`, serialised and base64."""\n'
    )


def main(arguments: list[str]) -> int:
    """Write all modules, or compare them."""
    stale = 0
    for proto in sorted(ROOM.rglob("*.proto")):
        path, text = proto.with_name("descriptor.py"), descriptor(proto)
        if "--check" not in arguments:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale += 1
            print(f"{path.relative_to(ROOT)} is not fresh: run `make docs`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
