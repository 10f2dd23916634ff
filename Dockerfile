# Four images, one per process, each with its own extra's dependencies and nothing else:
#   docker build --target webhook|sidecar|authserver|controller .
# A fifth, demo, holds the fake upstream, MCP servers and client of manifests/overlays/demo.
# Everything is compiled beforehand, the base's standard library included (the public slim image
# ships without bytecode): the root is read-only at run time, and each start would compile anew.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
COPY pyproject.toml requirements.lock images/install ./

FROM build AS webhook-files
RUN ./install webhook /opt/tokenward
COPY chassis /opt/tokenward/chassis
COPY webhook /opt/tokenward/webhook
RUN python3 -m compileall -q /opt/tokenward

FROM build AS sidecar-files
RUN ./install sidecar /opt/tokenward
COPY chassis /opt/tokenward/chassis
COPY sidecar /opt/tokenward/sidecar
RUN python3 -m compileall -q /opt/tokenward

FROM build AS authserver-files
RUN ./install authserver /opt/tokenward
COPY chassis /opt/tokenward/chassis
COPY authserver /opt/tokenward/authserver
COPY tokenward /opt/tokenward/tokenward
RUN python3 -m compileall -q /opt/tokenward

FROM build AS controller-files
RUN ./install controller /opt/tokenward
COPY chassis /opt/tokenward/chassis
COPY controller /opt/tokenward/controller
RUN python3 -m compileall -q /opt/tokenward

FROM build AS demo-files
RUN ./install demo /opt/tokenward
COPY chassis /opt/tokenward/chassis
COPY demo /opt/tokenward/demo
COPY integrations/python/src/tokenward_mcp /opt/tokenward/tokenward_mcp
RUN python3 -m compileall -q /opt/tokenward

FROM ${BASE} AS runtime
# What builds has no place here, wherever the base keeps it.
RUN set -eu; \
    rm -f /usr/bin/pip* /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/wheel; \
    python3 -c 'import pathlib, shutil, sys; \
        [shutil.rmtree(found) for folder in sys.path[1:] \
            for name in ("pip", "pip-*", "setuptools*", "wheel*", "ensurepip", "idlelib") \
            for found in pathlib.Path(folder).glob(name) if found.is_dir()]'; \
    stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'); \
    python3 -m compileall -q -x '/(test|tests|lib2to3)/' "$stdlib" >/dev/null
ENV PYTHONPATH=/opt/tokenward \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/tokenward
LABEL org.opencontainers.image.title=tokenward \
    org.opencontainers.image.licenses=Apache-2.0

FROM runtime AS webhook
COPY --from=webhook-files /opt/tokenward /opt/tokenward
USER 15400:15400
EXPOSE 10250 9090
ENTRYPOINT ["python", "-m", "webhook"]

FROM runtime AS sidecar
COPY --from=sidecar-files /opt/tokenward /opt/tokenward
USER 15500:15500
EXPOSE 15501
ENTRYPOINT ["python", "-m", "sidecar"]

FROM runtime AS authserver
COPY --from=authserver-files /opt/tokenward /opt/tokenward
# For `kubectl exec deploy/tokenward-authserver -- tokenward ...`.
COPY --chmod=0755 images/tokenward /usr/local/bin/tokenward
USER 15410:15410
EXPOSE 8080 8443 9090
ENTRYPOINT ["python", "-m", "authserver"]

FROM runtime AS controller
COPY --from=controller-files /opt/tokenward /opt/tokenward
USER 15420:15420
EXPOSE 9090
ENTRYPOINT ["python", "-m", "controller"]

FROM runtime AS demo
COPY --from=demo-files /opt/tokenward /opt/tokenward
USER 15430:15430
