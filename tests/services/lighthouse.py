"""A service that knows nothing of Hostler, of the standard library alone: paints, embeds and tells.

POST   /paint {prompt, seconds?, job, fence}   202 {"data": {"ticket"}}, 200 when the Idempotency-Key was seen
GET    /tickets/T                              {"phase", "percent", "doing", "left", "picture"?, "trouble"?}
GET    /tickets/T/news                         the same as server-sent events
POST   /tickets/T/stop  /tickets/T/claim {fence}
DELETE /tickets/T
POST   /embed {text}                           {"vector": [...]}
POST   /tell {text, words?, pause?}            server-sent events {"word"}, then [DONE]
POST   /count {to}                             lines {"n"}, the last with "over": true
GET    /healthz  /stock  /counts               PUT /moods
"""

import itertools
import json
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOODS: dict[str, Any] = {
    "seconds": 0.2,
    "silence": False,
    "cut": False,
    "hang": False,
    "sick": False,
    "full": False,
    "empty": False,
    "strange": False,
    "trouble": None,
    "no": None,
}
TICKETS: dict[str, "Ticket"] = {}
KEYS: dict[str | None, str] = {}
COUNTS = {"executed": 0, "direct": 0}
LOCK = threading.Lock()
LABOUR = threading.Event()
"""Never set: what the service does takes time."""
NUMBERS: Iterator[int] = itertools.count(1)


class Ticket:
    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.fence: int = asked.get("fence", 1)
        self.seconds: float = asked.get("seconds", MOODS["seconds"])
        self.began = time.monotonic()
        self.stopped = False
        self.moods = dict(MOODS)

    @property
    def share(self) -> float:
        share = min(1.0, (time.monotonic() - self.began) / self.seconds)
        return min(share, 0.1) if self.moods["hang"] else share

    @property
    def phase(self) -> str:
        if self.stopped:
            return "binned"
        if self.share < 1.0:
            return "painting"
        if self.moods["strange"]:
            return "transcended"
        return "spoilt" if self.moods["trouble"] else "dry"

    def view(self) -> dict[str, Any]:
        phase = self.phase
        percent = int(self.share * 10) * 10
        view: dict[str, Any] = {
            "phase": phase,
            "percent": percent,
            "doing": f"layer {percent // 10}",
            "left": self.seconds,
        }
        if phase == "dry" and not self.moods["empty"]:
            view["picture"] = {"of": self.asked["prompt"], "key": self.asked.get("key")}
        if phase == "spoilt":
            view["trouble"] = self.moods["trouble"]
        return view


class Lighthouse(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def reply(self, status: int, value: Any, kind: str = "application/json", **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")

    def refuse(self, status: int, kind: str, text: str, **headers: str) -> None:
        self.reply(status, {"trouble": {"kind": kind, "text": text}}, **headers)

    def do_GET(self) -> None:
        match self.path.split("/")[1:]:
            case ["healthz"]:
                self.reply(*((500, {"is": "unwell"}) if MOODS["sick"] else (200, {"is": "lit", "release": "7"})))
            case ["stock"]:
                self.reply(200, {"shelf": [{"name": "oil"}, {"name": "ink"}], "hands": 3, "release": "7"})
            case ["counts"]:
                busy = sum(ticket.phase == "painting" for ticket in TICKETS.values())
                self.reply(200, {**COUNTS, "busy": busy + COUNTS["direct"], "tickets": len(TICKETS)})
            case ["tickets", ticket, *news]:
                found = TICKETS.get(ticket)
                if found is None:
                    self.refuse(404, "unknown", "no such ticket")
                elif news:
                    self.news(found)
                else:
                    self.reply(200, found.view())
            case _:
                self.reply(404, b"<html>nothing here</html>", kind="text/html")

    def do_PUT(self) -> None:
        MOODS.update(self.body())
        self.reply(200, MOODS)

    def do_DELETE(self) -> None:
        TICKETS.pop(self.path.split("/")[2], None)
        self.reply(200, {})

    def do_POST(self) -> None:
        asked = self.body()
        if MOODS["full"]:
            self.refuse(429, "full", "every easel is taken", Retry_After="7")
            return
        match self.path.split("/")[1:]:
            case ["paint"]:
                self.paint(asked)
            case ["tickets", ticket, verb]:
                self.steer(TICKETS.get(ticket), verb, asked["fence"])
            case ["embed"]:
                COUNTS["executed"] += 1
                answer = {"vector": [len(asked["text"]), 0.5], "trouble": MOODS["no"]}
                self.reply(200, {"trouble": None} if MOODS["empty"] else answer)
            case ["tell"]:
                self.tell(asked)
            case ["count"]:
                self.stream("application/x-ndjson")
                for number in range(1, asked["to"] + 1):
                    over = number == asked["to"] and not MOODS["cut"]
                    self.chunk(json.dumps({"n": number, "over": over}).encode() + b"\n")
                self.chunk(b"")
            case _:
                self.reply(404, b"<html>nothing here</html>", kind="text/html")

    def paint(self, asked: dict[str, Any]) -> None:
        key = self.headers.get("Idempotency-Key")
        asked["key"] = key
        if not asked.get("prompt"):
            self.refuse(422, "bad_prompt", "what am I to paint?")
            return
        with LOCK:
            known = KEYS.get(key)
            if known is None or known not in TICKETS:
                known = f"t-{next(NUMBERS)}"
                TICKETS[known] = Ticket(asked)
                COUNTS["executed"] += 1
                KEYS[key] = known
        self.reply(202, {"data": {"ticket": known}})

    def steer(self, ticket: Ticket | None, verb: str, fence: int) -> None:
        if ticket is None:
            self.refuse(404, "unknown", "no such ticket")
        elif fence < ticket.fence:
            self.refuse(409, "stale", "somebody else holds it")
        else:
            ticket.fence = fence
            ticket.stopped |= verb == "stop" and ticket.phase == "painting"
            self.reply(200, ticket.view())

    def stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def left(self) -> bool:
        """Whether the client has hung up."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable)

    def news(self, ticket: Ticket) -> None:
        self.stream("text/event-stream")
        shown: int | None = None
        while not self.left():
            view = ticket.view()
            over = view["phase"] != "painting"
            if view["percent"] != shown and not (over and ticket.moods["silence"]):
                shown = view["percent"]
                self.chunk(f"id: {shown}\ndata: {json.dumps(view)}\n\n".encode())
                if ticket.moods["cut"]:
                    self.close_connection = True
                    return
            if over and not ticket.moods["silence"]:
                self.chunk(f"data: {json.dumps(view)}\n\n".encode())
                self.chunk(b"")
                return
            LABOUR.wait(0.01)

    def tell(self, asked: dict[str, Any]) -> None:
        if not isinstance(asked.get("text"), str):
            self.refuse(422, "bad_prompt", "what am I to tell?")
            return
        COUNTS["executed"] += 1
        COUNTS["direct"] += 1
        try:
            self.stream("text/event-stream")
            for number in range(asked.get("words", 5)):
                if self.left():
                    return
                self.chunk(f"data: {json.dumps({'word': asked['text'] + str(number) + ' '})}\n\n".encode())
                if number and MOODS["cut"]:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                while number and MOODS["hang"] and not self.left():
                    LABOUR.wait(0.01)
                LABOUR.wait(asked.get("pause", 0.01))
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            pass
        finally:
            COUNTS["direct"] -= 1


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Lighthouse)
    server.daemon_threads = True
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # ends with whoever started it
