# SPDX-License-Identifier: GPL-2.0-or-later
# The two commands of the README: `make lab` and `make check`.

PYTHON := .venv/bin/python
RUN := $(PYTHON) runner.py
# Two guests at once on two cores, as in a run; more than four would want more memory than time.
TESTS := $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: help lab check quick prove bench setup lock clean

help:
	@echo "make lab     set everything up, run lab.toml, write results/report.html"
	@echo "make check   set everything up, pass all tests (builds and boots kernels)"
	@echo "make quick   linters and unit tests only: a minute or two, no guest"
	@echo "make prove   the long evidence, step by step; goes on where it was interrupted"
	@echo "             make prove STEPS=--help lists the steps, STEPS='boots user' takes two"
	@echo "make bench   how fast the lab itself is: docs/speed.md (an hour; never fails)"
	@echo "make setup   apt packages and .venv only"
	@echo "make lock    lock the Python packages of requirements.in with their hashes"
	@echo "make clean   remove .venv and results (the cache stays: runner.py gc)"

lab: setup
	$(RUN) run

check: setup
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(TESTS)

quick: setup
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(TESTS) -m 'not vm'

prove: setup
	$(PYTHON) -m tests.prove $(STEPS)

bench: setup
	$(PYTHON) -m benchmarks $(FIGURES)

setup:
	@python3 bootstrap.py

lock:
	python3 -m venv .lock
	.lock/bin/pip install --quiet pip-tools
	.lock/bin/python -m piptools compile --quiet --generate-hashes --allow-unsafe \
	    --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --no-header --output-file requirements.txt requirements.in
	rm -rf .lock

clean:
	rm -rf .venv results
