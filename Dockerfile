# syntax=docker/dockerfile:1
# The whole workflow in an image, for machines without Python 3.11:
#   docker build --tag metaapo .
#   docker run --rm --volume "$PWD/results:/metaapo/results" metaapo make reproduce
# The git clone is copied with its .git folder, because every result states its commit.
FROM python:3.11.13-slim-bookworm

# Versions of apt's packages follow the base image's tag.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /metaapo
# uv chooses this build of torch; `--build-arg UV_TORCH_BACKEND=auto` on a machine with an NVIDIA GPU.
ARG UV_TORCH_BACKEND=cpu
ENV UV_TORCH_BACKEND=${UV_TORCH_BACKEND} PATH=/metaapo/.venv/bin:${PATH}

COPY . .
RUN make .venv && git config --system --add safe.directory /metaapo
CMD ["make", "reproduce"]
