"""A page on this machine, on which people look at labels and decide."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowerray.errors import FlowerrayError, UsageError
from flowerray.progress import say
from flowerray.settings import ReviewSettings

if TYPE_CHECKING:
    from flowerray.review.session import Session

THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
PORTS = range(8421, 8441)
END_SECONDS = 10.0  # that requests under way may take when it ends
TOKEN_BYTES = 24


@dataclass(frozen=True)
class ReviewSummary:
    """The labels that were reviewed, of the last round; how many photographs are `decided` in all,
    and by `reviewers` each; the commands to go on with, `next`."""

    out: str
    round: int
    decided: int
    reviewers: dict[str, int]
    next: list[str]


def review(settings: ReviewSettings) -> ReviewSummary:
    """Serve the review of ``settings.labels`` until Ctrl-C.

    Raises:
        FlowerrayError: no labels or not all of them, or nothing can listen at that address.
    """
    from flowerray.review.session import Session

    _check_host(settings)
    say(f"review: reading {settings.labels} ...")
    session = Session(
        settings.labels, settings.features, settings.recipe, settings.findings, settings.limits
    )
    with _listening(settings.host, settings.port) as listener:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        scheme = "https" if settings.certificate else "http"
        host = settings.host if settings.host not in ("0.0.0.0", "::") else socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        address = f"{scheme}://{host}:{listener.getsockname()[1]}/{token}/"
        with _served(session, settings, token, listener):
            say(f"review: {len(session.round.pile):,} photographs at {address}")
            say("review: the address is the key to it; Ctrl-C ends, and nothing decided is lost")
            if not settings.no_browser and _has_browser():
                webbrowser.open(address)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    session.close()
    desk = session.round.desk
    return ReviewSummary(
        str(session.round.pile.output.folder),
        session.round.number,
        len(desk.decided),
        dict(desk.people().most_common()),
        session.commands(),
    )


def _check_host(settings: ReviewSettings) -> None:
    """
    Raises:
        UsageError: a certificate without its key, or the other way round.
    """
    if (settings.certificate is None) != (settings.key is None):
        raise UsageError("give --certificate and --key together")
    if settings.host not in THIS_MACHINE:
        plain = (
            "" if settings.certificate else ", in plain text: --certificate and --key encrypt it"
        )
        say(f"review: whoever reaches {settings.host} and has the address can decide{plain}")


def _listening(host: str, asked: int | None) -> socket.socket:
    """The port `asked` for, or the first free one of PORTS: the page keeps what isn't saved yet by
    its port, so it should be the same the next time."""
    ports = PORTS if asked is None else [asked]
    for port in ports:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family)
        except OSError as error:
            if port == ports[-1] or error.errno != errno.EADDRINUSE:
                raise FlowerrayError(
                    f"can't listen at {host}:{port}: {error.strerror or error}; choose another "
                    "--port"
                ) from None
    raise AssertionError("no port")


@contextlib.contextmanager
def _served(
    session: Session, settings: ReviewSettings, token: str, listener: socket.socket
) -> Iterator[None]:
    """The server, in a thread of its own for the length of the block."""
    import uvicorn

    from flowerray.review.server import app

    config = uvicorn.Config(
        app(session, token, any_host=settings.host not in THIS_MACHINE),
        log_level="warning",
        access_log=False,  # it would have the token in it
        lifespan="off",
        server_header=False,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        timeout_graceful_shutdown=int(END_SECONDS),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True, name="server")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(END_SECONDS)


def _has_browser() -> bool:
    """Whether there is a screen for one: in a terminal alone a text browser would take it over."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
