"""Pictures and other files, in and out: by reference to the blob store, which keeps them by their content."""

import mimetypes
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from hostler.connectors.faults import fault, off_protocol
from hostler.connectors.services.comfyui.messages import Artifact, HistoryEntry, Node
from hostler.connectors.services.comfyui.server import ComfyuiServer
from hostler.connectors.stored import kept, taken
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import BlobRef
from hostler.contracts.reference import payload_reference
from hostler.kernel.units import Bytes, Json, Seconds
from hostler.ports.blobs import Blobs

TYPES: Final = mimetypes.MimeTypes()
"""Types by file name: Python's own table, made here once, since the first use of it reads files."""
for _type, _ending in (
    ("image/webp", ".webp"),
    ("audio/flac", ".flac"),
    ("audio/ogg", ".opus"),
    ("model/gltf-binary", ".glb"),
    ("video/x-matroska", ".mkv"),
):
    TYPES.add_type(_type, _ending)
SUBFOLDER: Final = "hostler"
"""Where uploads go in the server's input folder."""
FILES_MAX: Final = 256
"""Files of one job, each way."""
UPLOAD_LIMIT: Final[Bytes] = 104_857_600
"""Largest file that is uploaded; ComfyUI takes no more unless it is told to."""


class FileTransfer:
    """Moves files between the blob store and a server."""

    def __init__(self, server: ComfyuiServer, blobs: Blobs | None, *, limit: Bytes) -> None:
        """Take the largest file that is fetched, in bytes: it is held in memory while its digest is made."""
        self._server = server
        self._blobs = blobs
        self._limit = limit

    async def upload_all(self, workflow: dict[str, Node], *, within: Seconds) -> dict[str, dict[str, Json]]:
        """Return the graph as ComfyUI takes it, each reference replaced by the name of an uploaded file."""
        graph: dict[str, dict[str, Json]] = {}
        names: dict[str, str] = {}
        for node_id, node in workflow.items():
            inputs: dict[str, Json] = {}
            for field, value in node.inputs.items():
                reference = _reference(value)
                if reference is not None and reference.sha256 not in names:
                    if len(names) >= FILES_MAX:
                        raise fault(FailureClass.INVALID_INPUT, f"a workflow takes at most {FILES_MAX} files")
                    names[reference.sha256] = await self._upload(reference, within=within)
                inputs[field] = value if reference is None else names[reference.sha256]
            graph[node_id] = {**msgspec.to_builtins(node), "inputs": inputs}
        return graph

    async def _upload(self, ref: BlobRef, *, within: Seconds) -> str:
        body = await taken(self._blobs, ref, what="file", limit=UPLOAD_LIMIT)
        ending = TYPES.guess_extension(ref.media_type.partition(";")[0].strip()) or ".png"
        placed = await self._server.upload(
            body, name=f"{ref.sha256}{ending}", subfolder=SUBFOLDER, folder="input", overwrite=False, within=within
        )
        return f"{placed.subfolder}/{placed.name}" if placed.subfolder else placed.name

    async def fetch_all(self, entry: HistoryEntry, *, silence: Seconds | None) -> tuple[Artifact, ...]:
        """Fetch every file that an ended prompt names, once each."""
        found = list(_files(entry))
        if len(found) > FILES_MAX:
            raise off_protocol(f"the workflow made {len(found)} files, at most {FILES_MAX} are fetched")
        return tuple([await self._fetch(*one, silence=silence) for one in found])

    async def _fetch(self, node: str, output: str, file: tuple[str, str, str], *, silence: Seconds | None) -> Artifact:
        name, subfolder, folder = file
        body = await self._server.view(name, subfolder=subfolder, folder=folder, limit=self._limit, silence=silence)
        media_type = TYPES.guess_type(name)[0] or "application/octet-stream"
        full = f"{subfolder}/{name}" if subfolder else name
        blob = None if self._blobs is None else await kept(self._blobs, body, media_type)
        return Artifact(
            node=node,
            output=output,
            name=full,
            media_type=media_type,
            size=len(body),
            folder=folder,
            blob=blob,
            data=body if blob is None else None,
        )


def _reference(value: Json) -> BlobRef | None:
    """Return the blob that an input stands for; one that is written wrongly is the payload's fault."""
    if not isinstance(value, dict) or "$blob" not in value:
        return None
    found = payload_reference(msgspec.json.encode(value))
    if found is None:
        raise fault(FailureClass.INVALID_INPUT, 'a file is {"$blob": {"sha256": ..., "size": ..., "media_type": ...}}')
    return found


def _files(entry: HistoryEntry) -> Iterator[tuple[str, str, tuple[str, str, str]]]:
    """Yield node, output and (name, subfolder, folder) of each file; what is no file (text, flags) is left out."""
    seen: set[tuple[str, str, str]] = set()
    for node_id, shown in entry.outputs.items():
        for output, items in (shown or {}).items():
            for item in cast("list[Any]", items) if isinstance(items, list) else ():
                match item:
                    case {"filename": str(name)}:
                        fields = cast("dict[str, Any]", item)
                        file = (name, str(fields.get("subfolder") or ""), str(fields.get("type") or "output"))
                        if file not in seen:
                            seen.add(file)
                            yield node_id, output, file
                    case _:
                        pass


def texts_of(entry: HistoryEntry) -> dict[str, tuple[str, ...]]:
    """Return the text that nodes showed."""
    found: dict[str, tuple[str, ...]] = {}
    for node_id, shown in entry.outputs.items():
        said = (shown or {}).get("text")
        parts = cast("list[Any]", said) if isinstance(said, list) else [said]
        texts = tuple(part for part in parts if isinstance(part, str))
        if texts:
            found[node_id] = texts
    return found
