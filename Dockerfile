# One image, one binary: `cronfleet planner`, `cronfleet worker`, `cronfleet apply`, …
#
#   docker build -t cronfleet .

# What decides the dependencies, and nothing else: manifests, the lock file, and an empty file for every target's root.
FROM rust:1-bookworm AS manifests
WORKDIR /src
COPY . .
RUN set -eu; \
    mkdir /manifests; \
    find . -name Cargo.toml -exec cp --parents -t /manifests {} +; \
    cp Cargo.lock /manifests/; \
    find . \( -path '*/src/lib.rs' -o -path '*/src/main.rs' \) -exec cp --parents -t /manifests {} +; \
    find /manifests -name lib.rs -exec truncate -s 0 {} +; \
    find /manifests -name main.rs -exec sh -c 'for f; do echo "fn main() { }" > "$f"; done' sh {} +; \
    find /manifests -exec touch -d @0 {} +

FROM rust:1-bookworm AS build
WORKDIR /src
# This layer is built anew only when the stage above comes out different, that is, when dependencies change.
COPY --from=manifests /manifests .
RUN cargo build --release --locked -p cronfleet-cli
COPY . .
# Newer than the empty files they replace, or cargo would keep what it built from those.
RUN find . -name '*.rs' -not -path './target/*' -exec touch {} + \
    && cargo build --release --locked -p cronfleet-cli

FROM debian:bookworm-slim
# Certificates for targets served over https; nothing else is needed, zones are in the binary.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /data --create-home --shell /usr/sbin/nologin cronfleet
COPY --from=build /src/target/release/cronfleet /usr/local/bin/cronfleet
COPY LICENSE /usr/share/doc/cronfleet/LICENSE
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["cronfleet"]
CMD ["--help"]
