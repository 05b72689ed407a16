"""Ray Serve: a classifier behind HTTP. A photograph's bytes are posted, what it shows comes back.

serve run jobs.serve:app classifier=/data/classifier min_precision=0.97
curl --data-binary @rose.jpg http://127.0.0.1:8000/

Needs flowerray[serve]. What comes back is what `flowerray predict --json` prints of a photograph;
one that can't be read is answered with 422. Replicas, batches and addresses are Ray Serve's to set.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import flowerray

BATCH, WAIT_SECONDS = 16, 0.01  # photographs computed together, where so many come in that time


@serve.deployment
class Labeller:
    """One classifier, loaded once a replica."""

    def __init__(self, classifier: str, options: dict[str, Any]) -> None:
        self.classifier = flowerray.load(classifier, **options)

    async def __call__(self, request: Request) -> Response:
        if request.method != "POST":
            return JSONResponse({"error": "post the bytes of one photograph"}, 405)
        found = await self.predicted(await request.body())
        return JSONResponse(asdict(found), 422 if found.error else 200)

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_SECONDS)
    async def predicted(self, photographs: list[bytes]) -> list[Any]:
        """What each shows, a ``flowerray.commands.predict.Prediction``."""
        return await asyncio.to_thread(self.classifier.predict, photographs)


def app(arguments: dict[str, str]) -> serve.Application:
    """The application: `classifier`, and perhaps `min_precision`, `min_confidence`, `weights`.

    Raises:
        ValueError: another argument, or no classifier.
    """
    known = {"min_precision": float, "min_confidence": float, "weights": str}
    unknown = arguments.keys() - {*known, "classifier"}
    if unknown or "classifier" not in arguments:
        raise ValueError(
            f"give classifier=DIR, and perhaps {', '.join(known)}"
            + (f"; not {sorted(unknown)[0]}" if unknown else "")
        )
    options = {name: kind(arguments[name]) for name, kind in known.items() if name in arguments}
    return Labeller.bind(arguments["classifier"], options)
