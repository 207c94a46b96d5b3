# `make run` shows it, `make test` proves it; CI calls the same.
.PHONY: run build programs test check lint unit e2e web web-lint web-test go-test parquet-test chart chart-e2e packages image deb sim fuzz rig outage tenants deny tools goldens bench bench-inputs docs clean

# Where `make run` listens and stores.
LISTEN ?= 127.0.0.1:4100
STORAGE ?= file://$(CURDIR)/afterglow-data
# What `make sim` runs.
SEEDS ?= 0..1000
# What `make deny` checks; `advisories` asks the database of RustSec, over the network.
DENY ?= bans licenses sources
# How long `make rig` runs.
RIG_SECONDS ?= 1800
# How long the store is away in `make outage`.
OUTAGE_SECONDS ?= 600
# How many questions `make tenants` asks.
TENANT_QUESTIONS ?= 100000
# What is built into the programs where there is Node.
WEB := $(if $(shell command -v npm),web)
# What `make run` builds and starts; a test that has built it already says so.
RUN_BUILD ?= $(if $(WEB),$(MAKE) --no-print-directory $(WEB) &&) cargo build --locked --bin afterglow
RUN_PROGRAM ?= ./target/debug/afterglow

## run: build and start everything in one process over a local folder; it profiles itself, so data show soon
run:
	$(RUN_BUILD)
	$(RUN_PROGRAM) serve --listen $(LISTEN) --storage $(STORAGE)

# What the UI is built from.
WEB_SOURCES := web/index.html web/package.json web/tsconfig.json web/vite.config.ts $(shell find web/src web/public -type f)

## web: the web UI, which the next build of the programs embeds; without it they say how to build it
web: web/dist/index.html

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run --silent build

web-lint: web/node_modules/.package-lock.json
	cd web && npm run --silent lint && npm test --silent

## web-test: the UI in a browser, with the real server and really recorded profiles; pictures go to target/web
web-test: tools programs
	cd web && npm run --silent e2e

## build: all programs, optimised; they say which revision they are: what git says, or AFTERGLOW_REVISION
build: $(WEB)
	cargo build --locked --release --bins

# What the tests start: not the benchmarks, whose links take as long as all of these. `--workspace`, for the features that the tests are built with.
programs: $(WEB)
	cargo build --locked --workspace --bin afterglow --bin afterglow-agent --bin afterglow-ingester --bin afterglow-querier

## test: install what the tests need, then run all of them
test: tools web lint web-lint go-test unit web-test parquet-test chart packages

## check: the quick look before a commit
check: lint
	cargo test --locked --workspace --exclude afterglow-e2e

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit: programs
	cargo test --locked --workspace

## e2e: the real programs, MinIO, grpcurl and go tool pprof
e2e: tools programs
	cargo test --locked -p afterglow-e2e

go-test:
	cd agent/go && go vet ./... && go test ./...

## parquet-test: DuckDB and pyarrow read our blocks as the Parquet files they are
parquet-test: tools programs
	.cache/venv/bin/python -m pytest -q tests/parquet

## chart: the Helm chart: golden renders, schemas, an operator's review, alerts, and its trial without a cluster
chart: tools programs
	.cache/venv/bin/python -m pytest -q tests/chart

## chart-e2e: the Helm chart in a real Kubernetes API with a node that only says that it is one; ten minutes of CPU the first time
chart-e2e: tools
	tests/chart/cluster.sh
	AFTERGLOW_TEST_CLUSTER=1 .cache/venv/bin/python -m pytest -q tests/chart/test_cluster.py

## packages: the image and the Debian package of the program as it is, tried
packages: tools programs
	.cache/venv/bin/python -m pytest -q tests/packaging

## image: an OCI image of the optimised program into target/image, without Docker
image: build tools
	packaging/image.sh target/release/afterglow target/image

## deb: a Debian package of the optimised program into target/deb
deb: build tools
	packaging/deb.sh target/release/afterglow target/deb

## sim: seeds of the simulation, each twice; docs/testing.md says what they show
sim:
	SIM_SEEDS=$(SEEDS) cargo test --locked -p afterglow-simulation --test seeds -- --nocapture nothing_is_lost

## fuzz: what reads bytes of others, a minute each; FUZZ_SECONDS says how long
fuzz:
	fuzz/run.sh

## rig: real processes over MinIO, killed every second or so for half an hour
rig: tools programs
	RIG_SECONDS=$(RIG_SECONDS) cargo test --locked --workspace --test rig -- --nocapture

## outage: a store that is away for ten minutes, while senders push on
outage: tools programs
	OUTAGE_SECONDS=$(OUTAGE_SECONDS) cargo test --locked --workspace --test outage -- --nocapture

## tenants: a hundred thousand questions that try to see another tenant's data
tenants: tools programs
	TENANT_QUESTIONS=$(TENANT_QUESTIONS) cargo test --locked --workspace --test tenants -- --nocapture no_tenant_sees_another

## deny: what all dependencies are, by whom and under which licence (deny.toml); builds cargo-deny for ten minutes the first time
deny:
	test -x .cache/bin/cargo-deny || cargo install --locked cargo-deny --version 0.20.2 --root .cache
	.cache/bin/cargo-deny check $(DENY)

## tools: what the tests need beside Rust, Go, Node and Python, into .cache/
tools:
	tests/tools.sh

## goldens: renew the golden files; read the diff
goldens: tools
	INSTA_UPDATE=always cargo test --locked --workspace
	AFTERGLOW_RENEW=1 .cache/venv/bin/python -m pytest -q tests/chart -k renders_as_before

## docs: renew docs/configuration.md, docs/metrics.md and docs/refusals.md
docs:
	AFTERGLOW_RENEW=1 cargo test --locked -p afterglow docs::

## bench: the benchmarks; see bench/README.md
bench:
	bench/run.sh

## bench-inputs: record real profiles for the benchmarks into .cache/profiles; takes an hour
bench-inputs:
	bench/inputs/record.sh

clean:
	cargo clean
	rm -rf afterglow-data
