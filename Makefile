# Every target works on a fresh Debian 12, as root, with make, git and Python 3.11: what else it needs it installs.
PYTHON ?= python3
BIN := .venv/bin
# The bed needs the standard library only, so that a bed can be removed when there is no .venv any more.
BED = PYTHONPATH=tests $(or $(wildcard $(BIN)/python),$(PYTHON)) -m bed

BACK_ENDS ?= NFT,Legacy

.PHONY: help demo demo-down shell test bench check lint types unit fv st image venv demo-packages test-packages

help:
	@echo 'make demo               three hosts, Docker on each, and everything the product does on them; KEEP=1 leaves them up'
	@echo 'make shell HOST=node1   a shell on a host that was left up'
	@echo 'make demo-down          remove what a demo left'
	@echo 'make check              lint, types and unit tests: before every commit'
	@echo 'make test               all of it: lint, types, unit, fv (one host), st (several hosts)'
	@echo 'make lint|types|unit|fv|st   one of these alone'
	@echo 'make bench              the benchmarks, beside a reference; ROWS="up start" for some, ROWS=list shows them'
	@echo 'make image              the container image'

demo: demo-packages venv
	@$(BED) demo $(if $(filter-out 0 no,$(KEEP)),--keep)

demo-down:
	@$(BED) down demo

shell:
	@$(BED) shell demo $(or $(HOST),node1)

test: test-packages venv
	@$(BIN)/python tests/levels.py lint types unit fv st

check: venv
	@$(BIN)/python tests/levels.py lint types unit

lint types unit: venv
	@$(BIN)/python tests/levels.py $@

fv st: test-packages venv
	@$(BIN)/python tests/levels.py $@

bench: test-packages venv
	@$(BIN)/python benchmarks/bench.py --keep --back-ends $(BACK_ENDS) $(ROWS)

image:
	$(or $(shell command -v podman),docker) build --file Containerfile --tag calico/node:latest .

venv: .venv/.stamp

demo-packages test-packages:
	@deploy/packages.sh $(@:-packages=)

# The stamp holds the checksum of what the environment was made from: a newer date alone (a checkout) needs no package index.
.venv/.stamp: setup.cfg pyproject.toml
	@sum=$$(cat $^ | sha256sum) && if [ "$$sum" = "$$(cat $@ 2>/dev/null)" ]; then touch $@; else \
		deploy/packages.sh venv && echo 'making .venv (half a minute)' && $(PYTHON) -m venv .venv && \
		$(BIN)/pip install -q --disable-pip-version-check -e '.[dev,legacy]' && echo "$$sum" >$@; fi

# The pages of settings and errors, from the code.
docs: venv
	@$(BIN)/python docs/generate.py
.PHONY: docs
