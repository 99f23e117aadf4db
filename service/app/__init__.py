"""The application: one ASGI object around everything that answers HTTP.

::

    server ──▶ Application                    request id · in flight · metrics · errors · log
                  ├─ POST /predict ─────────▶ PredictEndpoint      (no framework in between)
                  └─ everything else ───────▶ FastAPI              (probes, metrics, pages, documents)

    life       load in the background ──▶ serving ──▶ draining ──▶ closed
    /readyz    503 not_ready              200         503 shutting_down

The hot route is mounted in the FastAPI application as well, so that it has its 405 and its place among the
routes; the direct way saves two thirds of the time that a request spends in the framework.

Floors inside: `wiring` (settings → parts) and `journal` (what became of requests) ← `framework` (FastAPI) ←
`application`.
"""

from service.app.application import Application, Phase

__all__ = ["Application", "Phase"]
