"""The jobs API of newer ComfyUI servers, over the same queue and history."""

from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from hostler.testing.sims.comfyui_player import Item
from hostler.testing.sims.comfyui_work import ComfyuiWork
from hostler.testing.sims.work import RequestRefusedError

ENDS = {"execution_success", "execution_error", "execution_interrupted"}


class ComfyuiJobs:
    """`/api/jobs`: absent in the old dialect."""

    def __init__(self, work: ComfyuiWork) -> None:
        self._work = work

    def routes(self) -> list[web.RouteDef]:
        """Return its routes; they exist with the prefix `/api` only."""
        return [
            web.get("/api/jobs", self._list),
            web.get("/api/jobs/{id}", self._get),
            web.post("/api/jobs/cancel", self._cancel_many),
            web.post("/api/jobs/{id}/cancel", self._cancel),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self._there()
        jobs = [job for job, _ in self._jobs()]
        wanted = request.query.get("status")
        if wanted is not None:
            jobs = [job for job in jobs if job["status"] in wanted.split(",")]
        jobs.sort(key=lambda job: job.get("create_time", 0), reverse=request.query.get("sort_order", "desc") == "desc")
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", len(jobs)))
        page = jobs[offset : offset + limit]
        pages = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": offset + len(page) < len(jobs)}
        return web.json_response({"jobs": page, "pagination": pages})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self._there()
        prompt_id = request.match_info["id"]
        for job, whole in self._jobs():
            if job["id"] == prompt_id:
                return web.json_response({**job, **whole})
        return web.json_response({"error": "Job not found"}, status=404)

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        self._there()
        prompt_id = request.match_info["id"]
        return web.json_response({"cancelled": self._work.delete(prompt_id) or self._work.interrupt(prompt_id)})

    async def _cancel_many(self, request: web.Request) -> web.StreamResponse:
        self._there()
        try:
            ids = msgspec.json.decode(await request.read(), type=dict[str, list[str]]).get("job_ids", [])
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise RequestRefusedError(400, "invalid_json", str(error)) from None
        done = [self._work.delete(one) or self._work.interrupt(one) for one in ids]
        return web.json_response({"cancelled": any(done)})

    def _there(self) -> None:
        if not self._work.modern:
            raise RequestRefusedError(404, "no_route", "404: Not Found")

    def _jobs(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each job, and what only a look at that job alone shows."""
        run = self._work.running
        if run is not None:
            item: Item = (run.number, run.prompt_id, run.prompt, run.extra, run.outputs)
            yield _queued(item, "in_progress"), {}
        for item in self._work.waiting():
            yield _queued(item, "pending"), {}
        for prompt_id, entry in self._work.history.items():
            yield _ended(prompt_id, entry)


def _queued(item: Item, status: str) -> dict[str, Any]:
    number, prompt_id, _, extra, _ = item
    created = extra.get("create_time", 0)
    return {"id": prompt_id, "status": status, "priority": number, "create_time": created, "outputs_count": 0}


def _ended(prompt_id: str, entry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    number, _, prompt, extra, _ = entry["prompt"]
    course = dict(entry["status"]["messages"])
    status = "completed" if entry["status"]["status_str"] == "success" else "failed"
    job: dict[str, Any] = {
        "id": prompt_id,
        "status": "cancelled" if "execution_interrupted" in course else status,
        "priority": number,
        "create_time": extra.get("create_time", 0),
        "execution_start_time": course.get("execution_start", {}).get("timestamp"),
        "execution_end_time": next((data["timestamp"] for event, data in course.items() if event in ENDS), None),
        "outputs_count": sum(len(items) for shown in entry["outputs"].values() for items in shown.values()),
    }
    if "execution_error" in course:
        job["execution_error"] = course["execution_error"]
    whole = {
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": prompt, "extra_data": extra},
    }
    return job, whole
