# What a person does with a checkout. Every target first runs scripts/bootstrap, which is instant when nothing is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The real folder, not the .venv link: servers that run as another user get their Python from the same path.
BIN = $(realpath .venv)/bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: ## Debian packages and the Python environment; says what it is about to install
	@scripts/bootstrap

.PHONY: demo
demo: install ## bring the platform up, load real data, train, strike it in six ways under load, print the verdict
	@$(BIN)/breakwater demo

.PHONY: test
test: install ## everything: lint, types, layers beside the unit tests, then integration and e2e tests
	@$(MAKE) --jobs=2 --output-sync=target lint test-unit
	scripts/bootstrap browser
	scripts/reap $(BIN)/pytest --junit-xml=build/junit/test.xml tests/integration tests/e2e

.PHONY: test-unit
test-unit: install ## the fast tests only
	@$(BIN)/pytest --junit-xml=build/junit/unit.xml tests/unit

.PHONY: test-containers
test-containers: install ## the stores in the project's own images; starts a Docker engine where none answers (root)
	@docker info >/dev/null 2>&1 || trap tests/cluster/down EXIT
	tests/cluster/base-image
	BASE_IMAGE=$${BASE_IMAGE:-localhost/debian:bookworm-slim} $(BIN)/python -m services.images.build postgres redis
	$(BIN)/pytest --junit-xml=build/junit/containers.xml tests/integration/containers

.PHONY: test-kubernetes
test-kubernetes: install ## the rendered platform on a real cluster: KUBECONFIG's with its images, else one of tests/cluster (root, go)
	@if [ -z "$${KUBECONFIG:-}" ]; then
		trap 'tests/cluster/down --purge' EXIT
		tests/cluster/build
		tests/cluster/base-image
		BASE_IMAGE=$${BASE_IMAGE:-localhost/debian:bookworm-slim} $(BIN)/python -m services.images.build
	fi
	$(BIN)/pytest --junit-xml=build/junit/kubernetes.xml tests/kubernetes

.PHONY: lint
lint: install ## style, format, types and the direction of dependencies
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: install ## rewrite the sources in the one format
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: soak
soak: install ## runs killed at 20 moments, ten rounds of every scenario as rows of docs/results/, all controls; about four hours
	@status=0
	scripts/reap $(BIN)/pytest tests/e2e/test_runner_killed.py --moments 20 || status=$$?
	$(BIN)/breakwater up local
	$(BIN)/breakwater load local
	$(BIN)/breakwater train local
	$(BIN)/breakwater soak local || status=$$?
	$(BIN)/breakwater controls local || status=1
	exit $$status

.PHONY: bench
bench: install ## speed beside MLServer, MLflow and BentoML, of the whole stack and of the judge, as rows of docs/results/; about 8 minutes
	@for package in wrk:wrk nghttp2-client:h2load openjdk-17-jdk-headless:javac; do
		command -v $${package#*:} >/dev/null || { echo "missing: $${package%:*}; as root: apt-get install $${package%:*}"; exit 3; }
	done
	$(BIN)/python -m benchmarks $(BENCH)
	$(BIN)/python -m benchmarks.judging

.PHONY: lock
lock: install ## resolve pyproject.toml again into the hashed *.lock files; what still fits stays as it is
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --extra dev \
		--output-file requirements.lock pyproject.toml
	for tool in setuptools:build uv:uv; do
		echo $${tool%:*} | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
			--output-file requirements.$${tool#*:}.lock -
	done
	for peer in mlserver mlflow bentoml; do
		$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
			--output-file benchmarks/peers/$$peer.lock benchmarks/peers/$$peer.in
	done
	for image in services/images/*/requirements.in; do
		$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
			--constraint requirements.lock --output-file $${image%.in}.lock $$image
	done
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		--output-file services/etl/mage/requirements.lock services/etl/mage/requirements.in
	git --no-pager diff --stat -- '*.lock'

.PHONY: images
images: install ## the images of the pods, from BASE_IMAGE (a Debian 12), with bills of materials; needs docker
	@$(BIN)/python -m services.images.build

.PHONY: clean
clean: ## remove what the tools cache; environments, runs and .venv stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
