"""The review's server: what the page asks for, all below an address that only its reader knows.

Nothing is served but the page's own files and the photographs of the pile, by number. A request
must name the token, which is part of the address, and may not come from another origin's page.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from flowerray.errors import FlowerrayError, UsageError
from flowerray.reports import page
from flowerray.review.pictures import Pictures
from flowerray.review.session import Session
from flowerray.sources.photographs import REASONS, Rejected

PAGE = Path(__file__).parent / "page"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address is the key
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
LOCAL = {"127.0.0.1", "localhost", "[::1]"}
MOST_BODY = 1 << 20  # bytes of a request


def app(session: Session, token: str, any_host: bool = False) -> Starlette:
    """The server of `session`; with `any_host` it answers to whatever name it is reached by."""
    api = {
        "pile": ("GET", session.pile_told),
        "next": ("POST", session.cards),
        "decide": ("POST", session.decide),
        "undo": ("POST", session.undo),
        "release": ("POST", session.release),
        "audit": ("POST", session.draw_audit),
        "end": ("GET", session.end_told),
    }
    both = {"map": (session.map_told, session.make_map), "teach": (session.teaching, session.teach)}
    routes = [
        *(Route(f"/api/{name}", _answer(call), methods=[how]) for name, (how, call) in api.items()),
        *(
            Route(f"/api/{name}", _answer(call), methods=[how])
            for name, calls in both.items()
            for how, call in zip(("GET", "POST"), calls, strict=True)
        ),
        Route("/photo/{id:int}", _photograph(session, session.pictures), methods=["GET"]),
        Route("/", _page, methods=["GET"]),
        Route("/static/palette.css", _palette, methods=["GET"]),
        Mount("/static", StaticFiles(directory=PAGE)),
    ]
    served = Starlette(routes=[Mount(f"/{token}", routes=routes)])
    served.add_middleware(_Guard, token=token, any_host=any_host)
    return served


class _Guard:
    """Refuses a request without the token, for another host, or from another origin's page."""

    def __init__(self, app: ASGIApp, token: str, any_host: bool) -> None:
        self.app, self.token, self.any_host = app, token, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        if not self._may(request):
            refusal = PlainTextResponse("the address isn't whole, or isn't yours", 403, HEADERS)
            return await refusal(scope, receive, send)

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                there = [(n.lower(), v) for n, v in message["headers"]]
                if "/static/" in request.url.path:  # the next version may change it
                    there.append((b"cache-control", b"no-cache"))
                more = [(n.lower().encode(), v.encode()) for n, v in HEADERS.items()]
                message = {**message, "headers": there + more}
            await send(message)

        await self.app(scope, receive, with_headers)

    def _may(self, request: Request) -> bool:
        given = request.url.path.lstrip("/").partition("/")[0]
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] or host
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "none")
        to_page = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
        return (
            secrets.compare_digest(given.encode(), self.token.encode())
            and (self.any_host or name in LOCAL)
            and origin in (None, f"{request.url.scheme}://{host}")
            and (site in ("none", "same-origin") or to_page)
        )


def _answer(call: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Any]:
    """An endpoint: `call` gets the body, or the query, and returns what is sent as JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            asked = dict(request.query_params)
            if request.method == "POST":
                asked |= await _body(request)
            return JSONResponse(await run_in_threadpool(call, asked))
        except FlowerrayError as error:
            status = 400 if isinstance(error, UsageError) else 409
            return JSONResponse({"error": str(error)}, status)

    return endpoint


async def _body(request: Request) -> dict[str, Any]:
    """
    Raises:
        UsageError: it is too long, or no JSON object.
    """
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BODY:
            raise UsageError("the request is too long")
    try:
        asked = json.loads(data or b"{}")
    except ValueError:
        raise UsageError("the request is no JSON") from None
    if not isinstance(asked, dict):
        raise UsageError("the request is no JSON object")
    return asked


def _photograph(session: Session, pictures: Pictures) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        uri = await run_in_threadpool(session.uri_of, request.path_params["id"])
        if uri is None:
            return PlainTextResponse("no such photograph", 404)
        side = request.query_params.get("side", "")
        try:
            if side.isascii() and side.isdigit():
                picture = await run_in_threadpool(pictures.small, uri, int(side[:6]))
            else:
                picture = await run_in_threadpool(pictures.original, uri)
        except Rejected as rejected:
            return PlainTextResponse(REASONS[rejected.reason], 404)
        except FlowerrayError as error:
            return PlainTextResponse(str(error), 503)
        kept = {"Cache-Control": "private, max-age=3600, immutable"}
        return Response(picture.data, media_type=picture.media_type, headers=kept)

    return endpoint


async def _palette(request: Request) -> Response:
    """The colours, which the reports have too."""
    return Response(page.file("palette.css"), media_type="text/css")


async def _page(request: Request) -> Response:
    html = (PAGE / "index.html").read_text("utf-8")
    return Response(html, media_type="text/html", headers={"Cache-Control": "no-store"})
