# pgbackupd: the targets a stranger guesses. `make` alone lists them.
SHELL := /bin/bash
STRICT := --explicit-target-dependency-import-check error
# The Swift runtime goes into the binaries: nothing of Swift is needed where they run.
RELEASE := -c release --static-swift-stdlib $(STRICT)
DESTDIR ?=
PREFIX ?= /usr

.PHONY: help setup build demo test-setup test test-systemd fuzz fuzz-corpus sanitize coverage lint format bench install clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## install what is missing (apt)
	@scripts/setup.sh

build: setup ## build both programs for release
	swift build $(RELEASE) --product pgbackupd
	swift build $(RELEASE) --product pgbackupctl

demo: build ## see the main job on a throw-away PostgreSQL; KEEP=1 leaves it running
	@scripts/demo.sh

test-setup:
	@PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh chromium fonts-dejavu-core prometheus postgresql-15-cron postgresql-15-pgaudit

test: test-setup ## run every test, on real servers
	swift build --build-tests $(STRICT)
	@scripts/test.sh

test-systemd: build ## try the unit under a real systemd: Debian 13 and 12 in containers
	@scripts/test-systemd.sh

fuzz: setup ## fuzz every parser of outside bytes, FUZZ_SECONDS=60 each
	@scripts/fuzz.sh

fuzz-corpus: setup ## the same for ten seconds each, from a fixed seed
	@FUZZ_SEED=1 FUZZ_SECONDS=10 scripts/fuzz.sh

sanitize: test-setup ## run the unit tests under ThreadSanitizer and AddressSanitizer
	@scripts/sanitize.sh thread
	@scripts/sanitize.sh address

coverage: test-setup ## print the lines that tests cover, by room; fails below scripts/coverage.sh's thresholds
	@scripts/coverage.sh

lint: ## check style and house rules
	@scripts/lint.sh

format: ## bring the sources into style
	swift format --in-place --recursive Sources Tests Fuzz Package.swift

bench: build ## measure; prints ratios against pg_dump and a shell pipeline of the same run
	@Benchmarks/run.sh

install: ## put programs, unit and examples in place (DESTDIR=, PREFIX=/usr)
	install -D -m 0755 .build/release/pgbackupd $(DESTDIR)$(PREFIX)/bin/pgbackupd
	install -D -m 0755 .build/release/pgbackupctl $(DESTDIR)$(PREFIX)/bin/pgbackupctl
	install -D -m 0644 systemd/pgbackupd.service $(DESTDIR)$(PREFIX)/lib/systemd/system/pgbackupd.service
	install -D -m 0644 systemd/pgbackupd.catalog $(DESTDIR)$(PREFIX)/lib/systemd/catalog/pgbackupd.catalog
	install -D -m 0644 systemd/pgbackupd.sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/pgbackupd.conf
	install -D -m 0644 systemd/pgbackupd.tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/pgbackupd.conf
	install -D -m 0644 etc/pgbackupd.yaml $(DESTDIR)$(PREFIX)/share/doc/pgbackupd/pgbackupd.yaml
	install -D -m 0644 etc/prometheus/pgbackupd.rules.yml $(DESTDIR)$(PREFIX)/share/doc/pgbackupd/pgbackupd.rules.yml
	install -D -m 0644 etc/grafana/pgbackupd.json $(DESTDIR)$(PREFIX)/share/doc/pgbackupd/grafana-dashboard.json
	install -D -m 0644 systemd/example-drop-in.conf $(DESTDIR)$(PREFIX)/share/doc/pgbackupd/example-drop-in.conf

clean: ## remove what was built
	rm -rf .build .build-*
