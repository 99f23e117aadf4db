# Two images: `--target cpu` (the default) and `--target gpu`. Neither has torch in it.
#
#   base ─▶ build ──────▶ build-gpu
#    └────▶ runtime ─┬──▶ gpu   COPY from build-gpu
#                    └──▶ cpu   COPY from build
#
# Any Debian-like image with Python >= 3.11 and its venv module will do as a base.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS base

FROM base AS build
ARG PIP_ARGS=""
# `tracing`, `grpc`: extras of pyproject.toml, separated by commas.
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service/__init__.py service/
# The dependencies are a layer of their own, which a change of the code leaves alone.
# hadolint ignore=SC2086
RUN python3 -m venv /opt/foldserve \
    && /opt/foldserve/bin/pip install --no-cache-dir ${PIP_ARGS} -c constraints.txt ".${EXTRAS:+[${EXTRAS}]}"
COPY service service
# hadolint ignore=SC2086
RUN /opt/foldserve/bin/pip install --no-cache-dir ${PIP_ARGS} --no-deps --force-reinstall .
# Models are mounted on /models, or baked in from this folder of the build context.
ARG MODELS=""
RUN --mount=type=bind,target=/context \
    mkdir /models && if [ -n "${MODELS}" ]; then cp -r "/context/${MODELS}/." /models/; fi

FROM build AS build-gpu
# hadolint ignore=SC2086
RUN /opt/foldserve/bin/pip install --no-cache-dir ${PIP_ARGS} -c constraints.txt '.[gpu]'

FROM base AS runtime
RUN useradd --uid 10001 --user-group --no-create-home foldserve
ENV PATH=/opt/foldserve/bin:$PATH \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    FOLDSERVE_HOST=0.0.0.0 \
    FOLDSERVE_PORT=8000 \
    FOLDSERVE_REPOSITORY=/models
COPY --from=build /models /models
USER 10001:10001
WORKDIR /
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['FOLDSERVE_PORT']}/readyz\", timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]

FROM runtime AS gpu
ARG COMMIT=""
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    FOLDSERVE_COMMIT=${COMMIT}
COPY --from=build-gpu /opt/foldserve /opt/foldserve

FROM runtime AS cpu
ARG COMMIT=""
ENV FOLDSERVE_COMMIT=${COMMIT}
COPY --from=build /opt/foldserve /opt/foldserve
