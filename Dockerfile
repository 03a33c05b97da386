# The operator. Docker with BuildKit, podman and buildah build it; python hack/images build does everything around it.
#
# BUILD_IMAGE needs Python with venv; BASE_IMAGE the same Python at the same path. Both should be given by digest:
# python hack/images pin asks the registry for them.
ARG BUILD_IMAGE=docker.io/library/python:3.12
ARG BASE_IMAGE=docker.io/library/python:3.12-slim

# The packages of the lock. How the index is reached (mirror, proxy, authorities) is told by build secrets, which stay outside.
FROM ${BUILD_IMAGE} AS environment
COPY images/build /build
COPY requirements/operator.lock /build/lock
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/etc/finetune-ca.pem \
    --mount=type=cache,target=/var/cache/pip \
    PIP_CACHE_DIR=/var/cache/pip python3 /build/environment.py /build/lock /opt/venv --tools /build/tools.lock --sbom /opt/venv/share/sbom.cdx.json

# The sources: the operator carries the training program as files, and starts it in pods.
FROM ${BUILD_IMAGE} AS sources
COPY operator/finetune_contract /app/finetune_contract
COPY operator/finetune_operator /app/finetune_operator
COPY images/finetune_stages/__init__.py /app/finetune_stages/__init__.py
COPY images/finetune_stages/sdk /app/finetune_stages/sdk
COPY images/finetune_stages/training /app/finetune_stages/training
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="finetune-operator" \
      org.opencontainers.image.description="The operator of FineTuneRun, the resource that fine-tunes a language model." \
      org.opencontainers.image.licenses="Apache-2.0" \
      io.finetunerun.sbom="/opt/venv/share/sbom.cdx.json"
# A pod's user may be any number and owns nothing here; what is written goes to /tmp.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 1001:0
WORKDIR /app
ENTRYPOINT ["python", "-m", "finetune_operator"]
COPY --from=environment /opt/venv /opt/venv
COPY --from=sources /app /app
