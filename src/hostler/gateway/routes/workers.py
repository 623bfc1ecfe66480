"""Workers: look at them, pause, resume, drain."""

from typing import Any

from hostler.contracts.api import Because, Commanded, Listing, WorkerVerb
from hostler.contracts.worker import Worker
from hostler.gateway.operation import Answer, Call, Nothing, Operation, Reply
from hostler.gateway.pages import page_of
from hostler.gateway.rooms import Rooms
from hostler.gateway.shapes import WorkersQuery
from hostler.kernel.errors import NotFoundError


class WorkerRoutes:
    """The handlers of `/v1/workers`."""

    def __init__(self, rooms: Rooms) -> None:
        self._registry = rooms.registry

    async def list_workers(self, _call: Call, query: WorkersQuery, _body: None) -> Answer:
        """List live workers, by id."""
        workers = await self._registry.workers(include_gone=query.gone)
        page, following = page_of(workers, query, key=lambda worker: worker.id)
        return Answer(body=Listing(items=tuple(page), next=following))

    async def get_worker(self, call: Call, _query: Nothing, _body: None) -> Answer:
        """Look at one worker, also one that was lost or stopped in the last hour."""
        for worker in await self._registry.workers(include_gone=True):
            if worker.id == call.path["worker"]:
                return Answer(body=worker)
        raise NotFoundError(
            f"There is no worker {call.path['worker']}; GET /v1/workers lists those that live.",
            worker=call.path["worker"],
        )

    async def pause_worker(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Ask a worker to claim nothing more; what it runs goes on."""
        return await self._command(call, body, WorkerVerb.PAUSE)

    async def resume_worker(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Ask a paused worker to claim again."""
        return await self._command(call, body, WorkerVerb.RESUME)

    async def drain_worker(self, call: Call, _query: Nothing, body: Because) -> Answer:
        """Ask a worker to finish, or give back, what it runs, and to stop."""
        return await self._command(call, body, WorkerVerb.DRAIN)

    async def _command(self, call: Call, body: Because, verb: WorkerVerb) -> Answer:
        await self._registry.command(call.path["worker"], str(verb), reason=body.reason)
        return Answer(body=Commanded(worker=call.path["worker"], verb=verb), status=202)

    def operations(self) -> tuple[Operation[Any, Any], ...]:
        """Return the routes."""
        verbs = {"pause": self.pause_worker, "resume": self.resume_worker, "drain": self.drain_worker}
        return (
            Operation(
                method="GET",
                path="/v1/workers",
                handler=self.list_workers,
                query=WorkersQuery,
                replies={200: Reply(about="The workers.", type=Listing[Worker])},
                tag="workers",
            ),
            Operation(
                method="GET",
                path="/v1/workers/{worker:str}",
                handler=self.get_worker,
                replies={200: Reply(about="The worker.", type=Worker)},
                errors=(NotFoundError,),
                tag="workers",
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/v1/workers/{{worker:str}}/{verb}",
                    handler=handler,
                    body=Because,
                    body_optional=True,
                    replies={202: Reply(about="It was asked.", type=Commanded)},
                    errors=(NotFoundError,),
                    tag="workers",
                )
                for verb, handler in verbs.items()
            ),
        )
