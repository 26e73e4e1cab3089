"""The table of routes. Read this file first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from snapshot.model.kinds import Scope
from snapshot.registry import TYPES
from xds_server.api import later
from xds_server.api.config_dump import ConfigDump
from xds_server.api.issues import Issues
from xds_server.api.parts import ApiParts
from xds_server.api.resources import Resources
from xds_server.api.responses import text_response
from xds_server.api.routing import Endpoint, Handler
from xds_server.api.server_info import ServerInfo
from xds_server.api.tokens import Tokens

Table = Iterator[tuple[str, Mapping[str, Handler]]]


def api_app(parts: ApiParts) -> Starlette:
    """The ASGI application of 5681 and 5682."""
    routes = [Route(path, Endpoint(path, handlers, parts)) for path, handlers in route_table(parts)]
    app = Starlette(routes=routes, exception_handlers={404: _unknown_path})
    app.router.redirect_slashes = False
    return app


def route_table(parts: ApiParts) -> Table:
    """Path → method → handler."""
    info, tokens, dump = ServerInfo(parts), Tokens(parts), ConfigDump(parts)
    yield "/", {"GET": info.index}
    yield "/versions", {"GET": info.versions}
    yield "/config", {"GET": info.config}
    yield "/issues", {"GET": Issues(parts).list}
    for path in ("/tokens", "/tokens/dataplane"):
        yield path, {"POST": tokens.dataplane}
    yield "/tokens/user", {"POST": tokens.user}
    for path in ("/tokens/zone", "/tokens/zone-ingress"):
        yield path, {"POST": tokens.zone}
    yield "/meshes/{mesh}/dataplanes/{name}/xds", {"GET": dump.get}
    yield from _types(parts)
    yield from _later()


def _types(parts: ApiParts) -> Table:
    for one in TYPES.values():
        made = Resources(one, parts)
        single = {"GET": made.get, "PUT": made.put, "DELETE": made.delete}
        yield f"/{one.path}", {"GET": made.list}
        if one.scope is Scope.MESH:
            yield f"/meshes/{{mesh}}/{one.path}", {"GET": made.list}
            yield f"/meshes/{{mesh}}/{one.path}/{{name}}", single
        else:
            yield f"/{one.path}/{{name}}", single


def _later() -> Table:
    for path, type_name in later.MESH_SCOPED.items():
        handlers = later.refusals(type_name)
        yield f"/{path}", {"GET": handlers["GET"]}
        yield f"/meshes/{{mesh}}/{path}", {"GET": handlers["GET"]}
        yield f"/meshes/{{mesh}}/{path}/{{name}}", handlers
    for path, type_name in later.GLOBAL.items():
        handlers = later.refusals(type_name)
        yield f"/{path}", {"GET": handlers["GET"]}
        yield f"/{path}/{{name}}", handlers


async def _unknown_path(request: Request, error: Exception) -> Response:
    del request, error
    return text_response("404: Page Not Found", 404)
