# Three images: `cpu` and `gpu` convert, train, predict and export; `serve` only serves a snapshot.
#   docker build --target cpu --tag image-classification:cpu .
# docs/container.md shows how to run them.

# Base images are pinned by tag and digest; to renew one, change both:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON=python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b
# The wheels for x86-64 and for ARM.
ARG UV="uv==0.13.0 \
    --hash=sha256:52c7da0fd9056d9551124777ec77de53f0df7017daf8f98a19e947b7837416ed \
    --hash=sha256:f840e640fe16591f6d71a94e8863707b7ba43c5786d1fe662868a9fb44c53e50"

# Fewer extras of pyproject.toml make smaller images: --build-arg EXTRAS="--extra remote"
ARG EXTRAS="--extra beam --extra litert --extra mlflow --extra onnx --extra presets \
    --extra remote --extra search --extra serve --extra wandb"
ARG SERVE_EXTRAS="--extra serve"

# Environments without pip, copied into the final images as they are. `--require-hashes` with the
# lock files as constraints: only the packages of the extras, and none without a hash in a lock file.
FROM ${PYTHON} AS packages
ARG UV
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/venv \
    INSTALL="uv pip install --quiet --require-hashes -r pyproject.toml \
    -c requirements.lock -c requirements-gpu-remote.lock"
RUN echo "${UV}" > uv.txt && pip install --quiet --no-cache-dir --require-hashes -r uv.txt
WORKDIR /build
COPY pyproject.toml requirements.lock requirements-gpu-remote.lock ./
RUN uv venv --quiet ${VIRTUAL_ENV}

FROM packages AS serve-packages
ARG SERVE_EXTRAS
RUN ${INSTALL} ${SERVE_EXTRAS}

FROM packages AS cpu-packages
ARG EXTRAS
RUN ${INSTALL} ${EXTRAS}

FROM packages AS gpu-packages
ARG EXTRAS
RUN ${INSTALL} --extra gpu ${EXTRAS}

# The project, with the bytecode that a user without write access cannot cache.
FROM ${PYTHON} AS project
WORKDIR /app
COPY run.py convert_dataset.py project.yaml hyperparameters.yaml ./
COPY library library
COPY project project
RUN python -m compileall -q .

FROM ${PYTHON} AS base
# /home/app holds downloads and caches. It is writable for every user, so that `--user` works.
RUN useradd --uid 1000 --create-home app && chmod 1777 /home/app \
    && install -d -o app -g app /app/dataset /app/out
ENV PATH=/opt/venv/bin:${PATH} HOME=/home/app TFHUB_CACHE_DIR=/home/app/.cache/tfhub \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 1000:1000

FROM base AS serve
COPY --from=serve-packages /opt/venv /opt/venv
COPY --from=project /app /app
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s CMD \
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
CMD ["python", "run.py", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS gpu
# What the NVIDIA container toolkit makes available: the driver's libraries and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-packages /opt/venv /opt/venv
COPY --from=project /app /app
CMD ["python", "run.py", "--help"]

# The last target is the default.
FROM base AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=project /app /app
CMD ["python", "run.py", "--help"]
