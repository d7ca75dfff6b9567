# Two commands do everything: `make run` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named for the interpreter: another PYTHON makes the environment anew.
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
# The same with the tools of developers: linters, type checker, tests, browser driver.
READY_DEV := $(READY)-dev

# Where this is set, each of a hundred processes of a test run would compile the project for itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run demo test lint types check bench load load-150k chaos chaos-cluster fuzz simulate lock clean

run: $(READY)
	@$(BIN)/fanfare serve

demo: $(READY)
	@$(BIN)/fanfare demo

# The web pages are tested in a Chromium. As root on Debian, its headless shell is installed where there is none.
test: $(READY_DEV)
	@$(BIN)/python -m tests.web.install_chromium
	@$(BIN)/python -m tests.e2e.install_faketime
	$(BIN)/pytest -n 4 --dist worksteal

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY_DEV)
	$(BIN)/mypy

check: lint types test

bench: $(READY_DEV)
	$(BIN)/python -m bench

# A minute of play by 5,000 players, on nodes of its own, and the proof that nothing was lost.
load: $(READY)
	$(BIN)/fanfare load steady --html load.html --json load.json

# 150,000 players on eight nodes, driven by nine generators: five minutes on two cores, and 4 GiB.
load-150k: $(READY)
	$(BIN)/fanfare load spike --html load-150k.html --json load-150k.json

# A quarter of an hour of faults under load, and the proof that nothing was lost. Another seed is another plan.
SEED ?= 1
FAULTS ?= 200
MINUTES ?= 13
ANSWERS ?= 500000
chaos: $(READY_DEV)
	@$(BIN)/python -m tests.e2e.install_faketime
	$(BIN)/fanfare chaos --seed $(SEED) --faults $(FAULTS) --minutes $(MINUTES) --answers $(ANSWERS)

# The same in a cluster, with what can happen to one.
NODES ?= 3
chaos-cluster: $(READY_DEV)
	@$(BIN)/python -m tests.e2e.install_faketime
	$(BIN)/fanfare chaos --seed $(SEED) --nodes $(NODES) --faults 96 --minutes 14 --players 1500

# Ten minutes of nonsense at every door of two nodes, beside a neighbour who must not notice.
fuzz: $(READY_DEV)
	$(BIN)/python -m tests.fuzz --seed $(SEED)

# Thousands of clusters in one process, each under a seed, with every fault there is.
SEEDS ?= 5000
simulate: $(READY_DEV)
	$(BIN)/python -m tests.shards.simulation --seeds $(SEEDS)

# The lock file pins every package by version; it names no registry.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
		(3, 11) <= v <= (3, 13) or sys.exit("Fanfare needs Python 3.11, 3.12 or 3.13. $(PYTHON) is %d.%d: name another with PYTHON=" % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $(READY)

$(READY_DEV): $(READY) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $(READY_DEV)

# A package has one version in both: the larger file is a constraint of the smaller one.
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --no-header --no-annotate --no-emit-index-url --extra embedded --extra build
lock:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(COMPILE) --extra dev --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
