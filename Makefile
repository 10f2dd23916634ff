# `make` lists the targets. Every target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup chromium test interop fresh-machine check format demo demo-serve bench layers models chaos drills alerts pictures images manifests release lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("Tokenward needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which with: make PYTHON=python3.12 …") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

setup: $(STAMP) ## make .venv with every locked dependency

chromium: ## install Chromium for the browser tests, where apt-get may (as root on Debian)
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; } || \
		echo "No Chromium here, and no way to install it: the browser tests will not run."

# The tests start hundreds of Python processes: each would compile all that it imports, again.
COMPILED := env -u PYTHONDONTWRITEBYTECODE

test: $(STAMP) chromium ## all tests that need nothing but this machine
	$(COMPILED) $(RUN) -m pytest -n auto --dist worksteal

interop: $(STAMP) ## tests with other people's clients, SDKs and servers, which it installs first
	$(COMPILED) $(RUN) -m pytest -m interop -n 2

fresh-machine: $(STAMP) ## run the README's commands in a Debian root with only Python and make; needs root
	$(RUN) -m tests.fresh_machine

check: $(STAMP) ## format, lint, types, import contract
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

format: $(STAMP) ## rewrite the sources in the house format
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

demo: $(STAMP) ## walk the main journey on loopback and print every hop
	$(RUN) -m demo

demo-serve: $(STAMP) ## leave the demo running and print the URLs for a browser
	$(RUN) -m demo --serve

# AGAINST=<commit> compares this tree with that build, in turn; NAMES="release storage" says what.
bench: $(STAMP) ## measure beside a bare aiohttp handler, or AGAINST=<commit> beside an earlier build
	$(RUN) -m tests.bench $(if $(AGAINST),--against $(AGAINST)) $(NAMES)

layers: $(STAMP) ## draw docs/explanation/layers.svg from the imports
	$(RUN) -m tests.architecture.layers

# Whichever of docker, podman and buildah works here. BASE names another base image, BUILD_FLAGS
# whatever else the tool is to be told. IMAGES=demo builds the demo's, for a cluster of your own.
IMAGE_TOOL  ?= $(shell for tool in docker podman buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done)
IMAGE_TAG   ?= dev
IMAGES      ?= webhook sidecar authserver controller
BASE        ?=
BUILD_FLAGS ?=

images: ## build the four images with docker, podman or buildah
	@test -n "$(IMAGE_TOOL)" || { echo "no working docker, podman or buildah here"; exit 1; }
	@set -e; for target in $(IMAGES); do \
		echo "$(IMAGE_TOOL): tokenward/$$target:$(IMAGE_TAG)"; \
		$(IMAGE_TOOL) build $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_FLAGS) --target $$target -t tokenward/$$target:$(IMAGE_TAG) .; \
	done

manifests: $(STAMP) ## render every overlay and validate every object in it
	$(RUN) -m tests.manifests

release: $(STAMP) ## build packages, images, install manifests, SBOMs and checksums into artefacts/release
	$(RUN) -m release $(if $(REGISTRY),--registry $(REGISTRY)) $(RELEASE_FLAGS)

models: $(STAMP) ## thousands of random sequences of refresh claims and signing keys; EXAMPLES=1000 each
	MODEL_EXAMPLES=$(or $(EXAMPLES),1000) $(RUN) -m pytest tests/authserver/storage/test_claim_model.py tests/authserver/tokens/test_key_model.py --timeout 3600 -n auto

chaos: $(STAMP) ## kill, partition and restart everything; at most eight minutes
	$(RUN) -m tests.chaos --report docs/reference/chaos-report.md $(if $(SEED),--seed $(SEED)) $(if $(LOAD),--sessions $(LOAD))

drills: $(STAMP) ## upgrade from the first build (needs the whole history), move clocks, let five providers fail
	$(RUN) -m pytest tests/upgrade/drill_upgrade.py tests/drills/drill_clock.py
	$(RUN) -m tests.drills --report docs/reference/outage-report.md $(if $(SEED),--seed $(SEED))

# Needs Debian's package `prometheus`.
alerts: $(STAMP) ## run dashboard and alerts under a real Prometheus, each alert's cause too; 25 minutes
	$(RUN) -m tests.monitoring --picture docs/images/dashboard.svg --report docs/reference/alert-drills.md

pictures: $(STAMP) chromium ## draw the pictures of our pages in docs/images, with Chromium
	$(RUN) -m tests.browser.pictures

lock: $(STAMP) ## recompute requirements.lock from pyproject.toml
	$(RUN) -m pip install --quiet uv
	$(RUN) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock

clean: ## remove what the targets made
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache artefacts

.PHONY: cluster controller-drills bench-controller test-cluster demo-cluster

# Needs Go: the programs are built from tests/cluster/go.mod, once, into the user's cache. NODE=1
# adds a node that starts pods; it needs root, and packages that the reference names.
CONTROL_PLANE := $(RUN) -m tests.cluster.control_plane $(if $(NODE),--node)

cluster: $(STAMP) ## run a real Kubernetes control plane on loopback until Ctrl-C; needs Go
	@$(CONTROL_PLANE)

# Kills the controller 200 times while fifty servers come and go, and stops a leader for 20 s.
controller-drills: $(STAMP) ## kill and stop the controller at a real API server; needs Go, 30 minutes
	@TOKENWARD_TEST_DISPOSABLE=1 TOKENWARD_TEST_KILLS=200 $(CONTROL_PLANE) -- $(RUN) -m pytest \
		tests/cluster/test_controller_kills.py tests/cluster/test_controller_handover.py

# With OBJECTS=1000 only, it takes five minutes; docs/reference/performance.md has the figures.
OBJECTS ?= 1000 5000
bench-controller: $(STAMP) ## measure controller and signer at a real API server; needs Go, 20 minutes
	@$(CONTROL_PLANE) -- sh -ec '$(RUN) -m tests.cluster.measure_signer; \
		for objects in $(OBJECTS); do $(RUN) -m tests.cluster.measure_controller $$objects; done'

test-cluster: $(STAMP) ## run tests/cluster against a real Kubernetes control plane; needs Go
	@TOKENWARD_TEST_DISPOSABLE=1 $(CONTROL_PLANE) -- $(RUN) -m pytest tests/cluster

# On the cluster that KUBECONFIG names, as `make cluster NODE=1` prints it; else on one of its own.
demo-cluster: $(STAMP) ## walk the main journey inside a cluster and print every hop
	@$(if $(KUBECONFIG),,$(RUN) -m tests.cluster.control_plane --node --) $(RUN) -m demo.cluster
