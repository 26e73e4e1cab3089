"""`kuma-cp run`: a control plane from its start to its end by SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal

import structlog
import uvloop

from xds_server.app.control_plane import ControlPlane, StartError
from xds_server.app.notify import notify
from xds_server.config import Config

GC_THRESHOLDS = (100_000, 50, 1_000)
"""Messages of a push are short-lived and acyclic: collecting every 700 of them costs a third of the push."""

_log = structlog.get_logger(__name__)


def main(config: Config) -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    gc.set_threshold(*GC_THRESHOLDS)
    _raise_descriptor_limit()
    return uvloop.run(_run(config))


async def _run(config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    control_plane = ControlPlane(config)
    try:
        starting = asyncio.ensure_future(control_plane.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,))
            return 0
        starting.result()
        notify("READY=1")
        await stopping
        notify("STOPPING=1")
        _log.info("stopping", drain_s=float(config.xds_server.drain_time))
    except StartError as error:
        _log.error("the control plane cannot start", reason=str(error))  # the reason says it all
        return 1
    finally:
        await control_plane.stop()
    _log.info("stopped")
    return 0


def _raise_descriptor_limit() -> None:
    """Each proxy costs a descriptor or two: take what the system gives without asking for privileges."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.info("open files", limit=hard)
