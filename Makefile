# make demo   see a half message stay hidden, a check fire and the commit arrive (the first build compiles RocksDB)
# make cluster  two groups of three brokers on this machine, to look at, and to kill members of
# make test   all tests
# make torture  power cuts, kills, groups under faults and hostile requests with fresh seeds for TORTURE_SECONDS (600)
# make fuzz   libFuzzer on everything that reads bytes: TARGET (all) for SECONDS (60); needs a nightly toolchain
# make check  format, lints, documentation, packages, licences, guide
# make build  release binaries, linked from bin/
# make dist   a tarball and Debian packages of them, in dist/ (docs/packages.md)
# Each target does the set-up that it needs.

# Outside the checkout, so that fresh clones share RocksDB's build.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/escrowmq/target

# One profile for everything: RocksDB is compiled once.
PROFILE := --release
BINARIES := escrowmq escrowmq-broker escrowmq-nameserver
# Features of the client without which the binaries are built.
DATABASES := escrowmq-client/sqlite,escrowmq-client/postgres,escrowmq-client/mysql,escrowmq-client/redis,escrowmq-client/tower,escrowmq-client/opentelemetry
# What is packed.
PROGRAMS := --package escrowmq --package escrowmq-broker --package escrowmq-nameserver
# What is published.
LIBRARIES := --package escrowmq-common --package escrowmq-client

.PHONY: setup build dist demo cluster test torture fuzz check clean
.DEFAULT_GOAL := build

setup:
	@sh deploy/setup.sh

LINK = @mkdir -p bin; for name in $(BINARIES); do ln -sf "$(CARGO_TARGET_DIR)/release/$$name" bin/$$name; done

build: setup
	cargo build --locked $(PROFILE) --workspace --bins
	$(LINK)

dist: setup
	@sh deploy/setup.sh dist
	cargo build --locked $(PROFILE) --bins $(PROGRAMS)
	deploy/dist "$(CARGO_TARGET_DIR)/release" dist

demo: build
	@bin/escrowmq demo

cluster: build
	@bin/escrowmq cluster

# Builds the binaries, too, with the features of the tests: a build before it would compile the client and all above it twice.
test: setup
	@sh deploy/setup.sh tests
	cargo test --locked $(PROFILE) --workspace --features $(DATABASES) --no-run
	$(LINK)
	ESCROWMQ_BIN="$(CURDIR)/bin" cargo test --locked $(PROFILE) --workspace --features $(DATABASES)

torture: build
	ESCROWMQ_BIN="$(CURDIR)/bin" tests/torture

# Says what to install where something is missing.
fuzz:
	@fuzz/run "$(or $(TARGET),all)" "$(or $(SECONDS),60)"

check: setup
	cargo fmt --all --check
	cargo clippy --locked $(PROFILE) --workspace --all-targets -- -D warnings
	cargo clippy --locked $(PROFILE) --package escrowmq-client --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(PROFILE) --workspace --no-deps --quiet --features $(DATABASES)
	cargo package --locked --no-verify --allow-dirty --quiet $(LIBRARIES)
	@if command -v cargo-deny >/dev/null 2>&1; then cargo deny check; \
	else echo "cargo-deny is not installed: licences and advisories were not checked"; fi
	@released=$$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); \
	if ! command -v cargo-semver-checks >/dev/null 2>&1; then \
	echo "cargo-semver-checks is not installed: the libraries were not compared with their last release"; \
	elif [ -z "$$released" ]; then echo "no release is tagged (v...): there is nothing to compare the libraries with"; \
	else cargo semver-checks $(LIBRARIES) --baseline-rev "$$released"; fi
	@if command -v mdbook >/dev/null 2>&1; then mdbook build --dest-dir "$(CARGO_TARGET_DIR)/guide" docs/guide; \
	else echo "mdbook is not installed: the guide was not built"; fi

# Leaves the shared target folder alone: RocksDB would have to be compiled again.
clean:
	rm -rf bin dist
