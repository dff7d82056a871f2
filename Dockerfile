# The core alone. With extras: docker build --build-arg EXTRAS="files web tools otel sentry" .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS packages
ARG EXTRAS=""
WORKDIR /build
COPY requirements*.lock ./
RUN python -m venv /opt/parley
RUN /opt/parley/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.lock
RUN for extra in $EXTRAS; do /opt/parley/bin/python -m pip install --no-cache-dir --require-hashes -r requirements-$extra.lock || exit 1; done

FROM python:${PYTHON}-slim
# Numbers, not names: Kubernetes' runAsNonRoot cannot read a name.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=packages /opt/parley /opt/parley
WORKDIR /app
COPY bot bot
COPY adapters adapters
COPY config config
RUN /opt/parley/bin/python -m compileall -q bot adapters config
# /data is all that is written to: the container may run with a read-only file system.
ENV PATH=/opt/parley/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    DATA_DIR=/data \
    HOST=0.0.0.0 \
    PORT=8080 \
    METRICS_PORT=9464
USER 10001:10001
VOLUME /data
EXPOSE 8080 5006 9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/livez', timeout=4)"]
ENTRYPOINT ["python", "-m", "bot"]
CMD ["run"]
