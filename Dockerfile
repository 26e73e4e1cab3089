# The control plane. All state is in the volume; the root file system may be read-only:
#   docker run --read-only --tmpfs /tmp -v koguma:/var/lib/koguma -p 5677:5677 -p 5678:5678 -p 5681:5681 koguma

FROM python:3.11-slim AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY snapshot snapshot
COPY xds_server xds_server
RUN python -m venv /opt/koguma
RUN /opt/koguma/bin/python -m pip install --no-cache-dir --constraint constraints.txt .
RUN /opt/koguma/bin/python -m compileall -q /opt/koguma

FROM python:3.11-slim
RUN useradd --system --uid 5678 --home-dir /var/lib/koguma --create-home koguma
COPY --from=build /opt/koguma /opt/koguma
ENV PATH=/opt/koguma/bin:$PATH \
    KUMA_GENERAL_WORK_DIR=/var/lib/koguma \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/koguma
USER 5678
# ADS; bootstrap; diagnostics; REST; REST over TLS
EXPOSE 5677 5678 5680 5681 5682
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s CMD ["kuma-cp", "health"]
ENTRYPOINT ["kuma-cp", "run"]
