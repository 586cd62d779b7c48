# docker build -t bids/brainage .
#
# One image for Docker, Podman and Apptainer.  It needs no network when it runs, any user id may
# run it, and its root may be read-only.
#
#   --build-arg TORCH_INDEX=URL       index of PyTorch's CPU builds, as its install page names it;
#                                     without it pip takes the default build (CUDA on Linux)
#   --build-arg BASE=...              another Debian-based Python image (3.11 or newer)

ARG BASE=python:3.11-slim-bookworm

# --- all packages, in one environment -------------------------------------------------------
FROM ${BASE} AS packages
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/src/constraints.txt
RUN python3 -m venv /opt/brainage/venv
ENV PATH=/opt/brainage/venv/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
# The requirements alone, so that a change of the code does not install them again.
COPY setup.py pyproject.toml README.md LICENSE NOTICE ./
COPY bids_brainage/__init__.py bids_brainage/
RUN pip install . && pip uninstall --yes bids_brainage
COPY bids_brainage/ bids_brainage/
RUN pip install --no-deps . && pip check

# --- what the program reads besides its code ------------------------------------------------
FROM packages AS resources
WORKDIR /
# The packaged bundles are checked and get a short path; --model-dir adds others.
# A mode is changed only where it must be: each changed file is stored once more.
RUN python -m bids_brainage.preprocessing.template /opt/templateflow \
 && ln -s "$(python -c 'from bids_brainage.bundles.places import model_dirs as d; print(d(None)[-1])')" \
      /opt/brainage/models \
 && python -m bids_brainage.bundles.check /opt/brainage/models/* \
 && find -L /opt/templateflow /opt/brainage/models -type f -print0 | sort -z \
      | xargs -0 sha256sum > /opt/brainage/SHA256SUMS \
 && find /opt/templateflow /opt/brainage \( ! -perm -o=r -o -type d ! -perm -o=x \) ! -type l \
      -exec chmod a+rX {} +

# --- the image ------------------------------------------------------------------------------
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG TAG=bids/brainage:${VERSION}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=resources /opt/brainage /opt/brainage
COPY --from=resources /opt/templateflow /opt/templateflow
COPY --chmod=755 container/entrypoint.sh /opt/brainage/entrypoint.sh
RUN echo "${VERSION}" > /version

ENV PATH=/opt/brainage/venv/bin:$PATH \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    BIDS_BRAINAGE_OFFLINE=1 \
    BIDS_BRAINAGE_CONTAINER_TAG=${TAG} \
    IS_DOCKER_8395080871=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    NO_ET=1 \
    LANG=C.UTF-8

LABEL org.opencontainers.image.title="bids_brainage" \
      org.opencontainers.image.description="Brain age from BIDS datasets" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/bids-apps/brainage" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /tmp
ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--", "/opt/brainage/entrypoint.sh"]
