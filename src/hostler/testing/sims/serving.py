"""How every simulator that speaks HTTP comes up: all of it, or nothing."""

from aiohttp import web


async def listening(
    app: web.Application, host: str, port: int, *, cancels: bool = True, grace: float = 0.5
) -> tuple[web.AppRunner, str]:
    """Serve an application; return what stops it, and its URL.

    `cancels`: a client that goes away cancels its request; `grace` is how many seconds requests get at the end.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=cancels, shutdown_timeout=grace)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
    except BaseException:  # also when cancelled: nothing may stay open behind a start that failed
        await runner.cleanup()
        raise
    host, port = runner.addresses[0][:2]
    return runner, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
