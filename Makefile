# Every target installs what it needs, says what it does and is quick the second time.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Cargo.lock is followed, never changed. With `make CARGO_FLAGS=` it may be (after editing a Cargo.toml).
CARGO_FLAGS ?= --locked
# For `cronfleet up` in `make up`, for the test runner in `make test-quick`.
ARGS ?=

say = printf '==> %s\n'
target_dir = $${CARGO_TARGET_DIR:-target}

##@ Run

.PHONY: up
up: toolchain nats-server ## The demo: builds, then runs server, planner, worker and example services until ^C. ARGS='--data-dir DIR'
	@$(say) "building cronfleet (the first time takes some minutes, the next seconds)"
	@cargo build $(CARGO_FLAGS) --workspace --bin cronfleet
	@server=$$(scripts/nats-server.sh); export CRONFLEET_NATS_SERVER="$$server"; \
	$(say) "cronfleet up --example marketprism $(ARGS)"; \
	exec "$(target_dir)/debug/cronfleet" up --example marketprism $(ARGS)

##@ Measure

.PHONY: bench
bench: toolchain nats-server ## Measures a fleet, optimised. ARGS='lateness --json': one scenario
	@$(say) "building cronfleet, optimised (the first time takes some minutes)"
	@cargo build $(CARGO_FLAGS) --release -p cronfleet-cli --bin cronfleet
	@server=$$(scripts/nats-server.sh); export CRONFLEET_NATS_SERVER="$$server"; \
	if [ -n "$(ARGS)" ]; then exec "$(target_dir)/release/cronfleet" bench $(ARGS); fi; \
	for scenario in lateness burst dispatch delayed failover schedules drain submit latency worker-memory worker-kill; do \
		"$(target_dir)/release/cronfleet" bench "$$scenario" --json; \
	done

##@ Check

.PHONY: test
test: toolchain-lints nats-server fmt-check scripts-check compose-check deny-quick lint doc build tests ## All checks and all tests: what CI runs
	@$(say) "all checks passed"

.PHONY: test-quick
test-quick: toolchain ## The tests that start no server. ARGS=cron: those with that in their name
	@scripts/run-tests.sh $(CARGO_FLAGS) --workspace --exclude cronfleet-specs $(ARGS)

.PHONY: tests
tests: toolchain
	@scripts/run-tests.sh $(CARGO_FLAGS) --workspace

.PHONY: chaos
chaos: chaos-time chaos-planning ## Long tests with random input, each with its seed printed: CHAOS_SEED=… runs the same again

# 12,000 random expressions against croner and brute force, every change of clocks in every zone, and texts nobody wrote.
.PHONY: chaos-time
chaos-time: toolchain
	@$(say) "chaos: time (the first time builds optimised, which takes some minutes)"
	@seed=$${CHAOS_SEED:-$$(od -An -N7 -tu8 /dev/urandom | tr -d ' ')}; \
	$(say) "CHAOS_SEED=$$seed"; \
	export CRON_SEED=$$seed FUZZ_SEED=$$seed CRON_CASES=$${CRON_CASES:-12000} FUZZ_ROUNDS=$${FUZZ_ROUNDS:-300000}; \
	cargo test --release $(CARGO_FLAGS) -p cronfleet-shared --test cron_oracle --test parsers_fuzz -- \
		--include-ignored --nocapture; \
	cargo test --release $(CARGO_FLAGS) -p cronfleet-shared --lib -- no_zone_sets_its_clocks_twice

# 10,000 simulated fleets, each with its own faults. SIM_SEED=n runs one of them again and tells what happened.
.PHONY: chaos-planning
chaos-planning: toolchain
	@$(say) "chaos: planning (the first time builds optimised, which takes some minutes)"
	@from=$${CHAOS_SEED:-$$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')}; \
	$(say) "CHAOS_SEED=$$from"; \
	export SIM_FROM=$${SIM_FROM:-$$from} SIM_SEEDS=$${SIM_SEEDS:-10000}; \
	cargo test --release $(CARGO_FLAGS) -p cronfleet-planner --lib -- --nocapture simulation::

.PHONY: build
build: toolchain ## Everything, unoptimised
	@$(say) "build"
	@cargo build $(CARGO_FLAGS) --workspace

.PHONY: fmt
fmt: toolchain-lints ## Formats the code
	@cargo fmt --all

.PHONY: fmt-check
fmt-check: toolchain-lints
	@$(say) "format (repair: make fmt)"
	@cargo fmt --all --check

.PHONY: lint
lint: toolchain-lints ## clippy over all targets; a warning is an error
	@$(say) "clippy"
	@cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

.PHONY: doc
doc: toolchain ## The documentation of the crates; a broken link is an error
	@$(say) "documentation of the crates"
	@RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps

.PHONY: deny
deny: toolchain ## Dependencies: bans, licences, sources and, where its database can be reached, advisories
	@$(say) "dependencies"
	@scripts/cargo-deny.sh --locked check bans licenses sources
	@if scripts/cargo-deny.sh fetch db; then \
		$(say) "dependencies: advisories"; scripts/cargo-deny.sh --locked check --disable-fetch advisories; \
	else \
		$(say) "dependencies: advisories NOT checked, their database cannot be reached from here"; \
	fi

# Without the advisories: a new one must not break yesterday's commit, and their database is a download.
.PHONY: deny-quick
deny-quick: toolchain
	@$(say) "dependencies: bans, licences, sources (all, with the warnings: make deny)"
	@scripts/cargo-deny.sh --locked --log-level error check --hide-inclusion-graph bans licenses sources

.PHONY: scripts-check
scripts-check:
	@$(say) "scripts"
	@for script in .ci/run scripts/*.sh; do bash -n "$$script"; done
	@if command -v shellcheck >/dev/null; then shellcheck -x .ci/run scripts/*.sh; \
	else $(say) "scripts: shellcheck skipped, it is not installed (Debian, Ubuntu: apt-get install shellcheck)"; fi

.PHONY: compose-check
compose-check:
	@if docker compose version >/dev/null 2>&1; then $(say) "docker-compose.yml"; docker compose config --quiet; \
	else $(say) "docker-compose.yml: skipped, docker has no compose plugin here"; fi

##@ Maintain

.PHONY: docs-generate
docs-generate: toolchain nats-server ## Writes the generated parts of docs/ anew
	@$(say) "generated documentation"
	@server=$$(scripts/nats-server.sh); export CRONFLEET_NATS_SERVER="$$server"; \
	CRONFLEET_UPDATE_DOCS=1 cargo test $(CARGO_FLAGS) -p cronfleet-specs --test specs generated

.PHONY: clean
clean: ## Removes what was built; keeps the tools in .tools and the demo's data in .cronfleet
	@cargo clean

# What must be there first.

.PHONY: toolchain
toolchain:
	@scripts/check-toolchain.sh

.PHONY: toolchain-lints
toolchain-lints:
	@scripts/check-toolchain.sh --lints

.PHONY: nats-server
nats-server:
	@scripts/nats-server.sh >/dev/null

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
