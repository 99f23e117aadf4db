"""The endpoint that everybody writes first: FastAPI, a raw body, inference in the thread pool."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from benchmarks.serving.classifier import Classifier


def create() -> FastAPI:
    """The application, for the model file that the environment names."""
    app = FastAPI()
    workers = int(os.environ["WORKERS"])
    # Several processes share the cores, so each gets one; a process alone takes them all.
    classifier = Classifier(Path(os.environ["MODEL"]), threads=0 if workers == 1 else 1)

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, float]:
        content = await request.body()
        (answer,) = await run_in_threadpool(classifier.classify, [content])
        return answer

    return app


if __name__ == "__main__":
    os.environ["MODEL"], port, os.environ["WORKERS"] = sys.argv[1:]
    uvicorn.run(
        "benchmarks.serving.contenders.handwritten:create",
        factory=True,
        port=int(port),
        workers=int(os.environ["WORKERS"]),
        access_log=False,
        log_level="warning",
    )
