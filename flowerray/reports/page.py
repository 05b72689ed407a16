"""From a template and its data to one HTML file that may load nothing and run no other script."""

from __future__ import annotations

import base64
import datetime
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from flowerray.version import __version__


@dataclass(frozen=True)
class Page:
    """A finished page, how many photographs it speaks of, and how many it shows."""

    html: str
    photographs: int
    shown: int


def fill(template: str, *scripts: str, **data: Any) -> str:
    """The page that `template` makes of `data`, with `scripts` in it.

    Everything in `data` is escaped. The policy in the page allows images out of the page itself,
    its one style and its scripts, all named by their SHA-256.
    """
    style = f"{file('palette.css')}{file('style.css')}"
    codes = [file(script) for script in ("page.js", *scripts)]
    policy = [
        "default-src 'none'",
        "img-src data:",
        f"style-src {_source_of(style)}",
        f"script-src {' '.join(map(_source_of, codes))}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return (
        _environment()
        .get_template(template)
        .render(
            policy="; ".join(policy),
            style=Markup(style),
            scripts=list(map(Markup, codes)),
            version=__version__,
            **data,
        )
    )


def _source_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def file(name: str) -> str:
    """A template, style or script of the pages."""
    return (resources.files("flowerray.reports") / "templates" / name).read_text("utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flowerray.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "percent": _percent, "decimal": _decimal}
    environment.filters |= {"name": _name, "moment": _moment}
    return environment


def _count(number: int) -> str:
    return f"{number:,}"


def _percent(share: float | None, digits: int = 1) -> str:
    return "\N{EN DASH}" if share is None else f"{share:.{digits}%}"


def _decimal(number: float | None, digits: int = 3) -> str:
    return "\N{EN DASH}" if number is None else f"{number:.{digits}f}"


def _moment(when: str) -> str:
    """A moment in ISO 8601, in words."""
    moment = datetime.datetime.fromisoformat(when).astimezone(datetime.UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri
