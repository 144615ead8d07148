# imagegate: `make gate` runs the release gate on its embedded default, `make test` the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests of real servers wait about as long as they compute. Each starts servers and workers of its
# own, so more than four of them at once only fill the memory.
REAL_WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n < 2 ? 2 : n > 4 ? 4 : n )))
REAL := $(BIN)/python -m pytest tests/real
export DO_NOT_TRACK := 1

.PHONY: gate test bench lint clean ui lock

# The default goal is the main job: what would production get if it took the candidate?
gate: $(READY)
	$(BIN)/imagegate run

# Hundreds of processes import the same modules: they are compiled once, whatever the shell says.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) lint
	$(BIN)/python -m pytest -n auto --dist loadfile --ignore tests/real
	@# Real servers on a machine that others use: what failed is tried once more, one test at a time
	@# and in fresh processes. Both outcomes are printed; what fails twice fails, and so does a run
	@# that broke off (pytest's 2 and above): not all of its tests were seen.
	$(REAL) -n $(REAL_WORKERS) --dist loadfile --no-loadscope-reorder || \
	  { test $$? -eq 1 && $(REAL) --last-failed --last-failed-no-failures none; }

bench: $(READY)
	$(BIN)/python -m pytest tests/benchmarks -o python_files='bench_*.py' -o python_functions='bench_* test_*' --benchmark-only --benchmark-columns=min,median,rounds

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The Prefect UI over the runs made here.
ui: $(READY)
	PREFECT_HOME=$${PREFECT_HOME:-$(CURDIR)/.imagegate/prefect} $(BIN)/prefect server start

# Everything comes from the lock, checked by hash; nothing is resolved here.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("imagegate needs Python 3.11 or newer, found %s" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing imagegate and its locked dependencies into $(VENV) (about a minute, once)"
	@if command -v uv >/dev/null 2>&1; then \
	  uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $(READY)

# For maintainers: resolve pyproject.toml anew for every Python we support.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev --no-header --no-annotate \
	  --no-strip-extras --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .imagegate build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find flows tasks tests datasets -name __pycache__ -type d -prune -exec rm -rf {} +
