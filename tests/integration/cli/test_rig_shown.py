"""What a rig reads of its gateways at the end: of the one that answers, while another is still on its way back."""

from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from hostler.cli.rig.secrets import SHOWN, shown


async def test_a_gateway_that_is_away_is_passed_over() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"this is {request.path}")

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    async with TestServer(app) as there:
        found = await shown((f"http://127.0.0.1:{unused_port()}", str(there.make_url(""))))
    assert [(one.source, one.text) for one in found] == [(path, f"this is /{path}") for path in SHOWN]
