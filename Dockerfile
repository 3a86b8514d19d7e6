# Builds the single binary and puts it on a small Debian. tests/e2e/container.test.ts carries out these very steps.
#
#   docker build --build-arg COMMIT=$(git rev-parse --short=12 HEAD) -t longshore .

FROM oven/bun:1.4.5-debian AS build
WORKDIR /build
COPY package.json bun.lock bunfig.toml ./
RUN bun install --frozen-lockfile --production
COPY scripts ./scripts
COPY db ./db
COPY src ./src
ARG COMMIT=unknown
RUN bun scripts/build.ts --commit "$COMMIT"

FROM debian:12.11-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates tzdata \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && groupadd --gid 10001 longshore \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin longshore \
 && install -d -o longshore -g longshore -m 0700 /data \
 && install -d /handlers
COPY --from=build /build/dist/longshore /usr/local/bin/longshore
# Within a container, others than the container itself reach it only so. Publish the port with care.
ENV HOST=0.0.0.0 PORT=8080 DATA_DIR=/data HANDLERS_DIR=/handlers
# docs/binary.md, "Memory".
ENV BUN_JSC_forceRAMSize=4294967296
USER 10001:10001
WORKDIR /data
# The embedded Postgres, the admin key. Everything else may be read-only.
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["longshore", "health"]
ENTRYPOINT ["longshore"]
CMD ["start"]
