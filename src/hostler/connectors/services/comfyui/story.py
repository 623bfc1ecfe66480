"""From what ComfyUI's socket says to how far a prompt is: pure, and only ever about one prompt."""

from collections.abc import Mapping
from typing import Any, Final, cast

from hostler.contracts.job import Progress

ENDINGS: Final = frozenset({"execution_success", "execution_error", "execution_interrupted"})
DONE: Final = 0.99
"""As far as a prompt gets before its history says that it ended."""
_LOADS: Final = "Loader"


class Story:
    """How far one prompt is; each of its nodes counts the same."""

    def __init__(self, prompt_id: str) -> None:
        self._prompt_id = prompt_id
        self._classes: dict[str, str] = {}
        self._done: set[str] = set()
        self._node: str | None = None
        self._part = 0.0
        self._steps = ""
        self._began = False

    def learn(self, prompt: Mapping[str, Any]) -> None:
        """Learn the graph."""
        for node_id, node in prompt.items():
            fields = cast("dict[str, Any]", node) if isinstance(node, dict) else {}
            self._classes[node_id] = str(fields.get("class_type", ""))[:128]

    @property
    def knows_graph(self) -> bool:
        """Whether the graph was learnt."""
        return bool(self._classes)

    @property
    def runs(self) -> bool:
        """Whether it is known to have begun."""
        return self._began

    def begin(self) -> None:
        """Know that it runs."""
        self._began = True

    def hear(self, event: str, data: Mapping[str, Any]) -> bool:
        """Take a message in; True when it says that the prompt has ended.

        Messages of other prompts, and those that name none, say nothing.
        """
        if data.get("prompt_id") != self._prompt_id:
            return False
        self._began = True
        match event:
            case "execution_cached":
                nodes = data.get("nodes")
                for node in cast("list[Any]", nodes) if isinstance(nodes, list) else ():
                    self._finish(node)
            case "executing":
                if data.get("node") is None:
                    return True
                if self._node is not None:
                    self._finish(self._node)
                self._enter(str(data["node"])[:256])
            case "executed":
                self._finish(data.get("node"))
            case "progress":
                self._step(data.get("value"), data.get("max"))
            case "progress_state":
                self._states(data.get("nodes"))
            case _:
                return event in ENDINGS
        return False

    def progress(self) -> Progress:
        """Return how far it is."""
        if not self._began:
            return Progress(stage="queued")
        known = self._classes.get(self._node or "", "")
        stage = "loading" if _LOADS in known and not self._part else "running"
        total = max(len(self._classes), 1)
        done = len(self._done - {self._node})
        fraction = min((done + self._part) / total, DONE)
        where = f"{known or 'node'} {self._node}" if self._node is not None else None
        message = f"{where}, {self._steps}" if where and self._steps else where
        return Progress(fraction=fraction, stage=stage, message=message)

    def _enter(self, node: str) -> None:
        if node != self._node:
            self._node, self._part, self._steps = node, 0.0, ""

    def _finish(self, node: Any) -> None:
        if isinstance(node, str) and node in self._classes:
            self._done.add(node)

    def _step(self, value: Any, most: Any) -> None:
        if isinstance(value, int | float) and isinstance(most, int | float) and most > 0:
            self._part = min(max(value / most, 0.0), 1.0)
            self._steps = f"step {value:g} of {most:g}"

    def _states(self, nodes: Any) -> None:
        if not isinstance(nodes, dict):
            return
        for node_id, node in cast("dict[str, Any]", nodes).items():
            fields = cast("dict[str, Any]", node) if isinstance(node, dict) else {}
            match fields.get("state"):
                case "finished":
                    self._finish(node_id)
                case "running":
                    self._enter(node_id[:256])
                    if fields.get("max") not in {None, 1}:
                        self._step(fields.get("value"), fields.get("max"))
                case _:
                    pass
