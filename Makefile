# pgbackupd: the targets a stranger guesses. `make` alone lists them.
SHELL := /bin/bash
STRICT := --explicit-target-dependency-import-check error
# The Swift runtime goes into the binaries: nothing of Swift is needed where they run.
RELEASE := -c release --static-swift-stdlib $(STRICT)
DESTDIR ?=
PREFIX ?= /usr

.PHONY: help setup build demo test lint format bench install clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## install what is missing (apt)
	@scripts/setup.sh

build: setup ## build both programs for release
	swift build $(RELEASE) --product pgbackupd
	swift build $(RELEASE) --product pgbackupctl

demo: build ## see the main job on a throw-away PostgreSQL; KEEP=1 leaves it running
	@scripts/demo.sh

test: setup ## run every test, on real servers
	swift build --build-tests $(STRICT)
	@scripts/test.sh

lint: ## check style and house rules
	@scripts/lint.sh

format: ## bring the sources into style
	swift format --in-place --recursive Sources Tests Package.swift

bench: build ## measure; prints ratios against pg_dump and a shell pipeline of the same run
	@Benchmarks/run.sh

install: ## put programs, unit and example in place (DESTDIR=, PREFIX=/usr)
	install -D -m 0755 .build/release/pgbackupd $(DESTDIR)$(PREFIX)/bin/pgbackupd
	install -D -m 0755 .build/release/pgbackupctl $(DESTDIR)$(PREFIX)/bin/pgbackupctl
	install -D -m 0644 systemd/pgbackupd.service $(DESTDIR)/lib/systemd/system/pgbackupd.service
	install -D -m 0644 etc/pgbackupd.yaml $(DESTDIR)$(PREFIX)/share/doc/pgbackupd/pgbackupd.yaml

clean: ## remove what was built
	rm -rf .build
