# Quintet: `make demo` shows it, `make test` proves it. All in .venv, nothing else.
#
#   PYTHON=…          the Python to make .venv with, 3.11 or later
#   BENCH=…           names of benches for `make bench`; all without it
#   TEST_PROCESSES=…  how many run tests at once, each with a stack of its own (default: 2)
#   EVAL=…            names of sets for `make eval`; all without it
#   IMAGES=…          names of images for `make images`; all without it
#   BASE_IMAGE=…      what `make images` builds on
#   TORCH_BACKEND=…   cpu (default), or what uv knows: auto, cu130, …

.PHONY: install dev-install demo up test chaos bench eval eval-answers lint types protos protos-check k8s images images-test locks observability check clean
.DEFAULT_GOAL := help

TEST_PROCESSES ?= 2

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' Makefile | expand -t 16

install: ## Quintet and all that it needs, in .venv
	@deploy/local/install.sh

dev-install: ## the same, with what the targets below need
	@deploy/local/install.sh --dev

demo: install ## ingest a corpus, ask three questions, stop
	@.venv/bin/quintet demo

up: install ## run everything until Ctrl-C
	@.venv/bin/quintet up

test: dev-install ## all tests: unit, contract, integration, end to end
	.venv/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		$(PYTEST_ARGS)

chaos: dev-install ## break each part in each way under load, and find no wrong answer: build/chaos.json
	@cd tests && ../.venv/bin/python -m chaos $(CHAOS_ARGS)

bench: dev-install ## every published figure, beside what a user would pick instead; BENCH=embedder runs one
	.venv/bin/python -m bench $(BENCH) $(BENCH_ARGS)

eval: dev-install ## what a search finds and what is answered, on the sets in QUINTET_EVAL_DATA: build/eval.json, docs/quality.md and docs/answers.md
	.venv/bin/python -m evaluation $(EVAL) --publish

eval-answers: dev-install ## what is made of what was found: the other figures of docs/answers.md, on standard output
	.venv/bin/python -m evaluation.answers
	.venv/bin/python -m evaluation.shorter
	.venv/bin/python -m evaluation.support
	.venv/bin/python -m evaluation.conversation
	.venv/bin/python -m evaluation.injection

lint: dev-install ## style, format, and which part may import which
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

types: dev-install ## static types
	.venv/bin/mypy servicekit services/* cli deploy/images deploy/local deploy/observability tests bench evaluation

protos: ## generate the Python code of the contracts anew
	PYTHON="$${PYTHON:-python3}" sh protos/generate.sh

protos-check: dev-install ## contracts: style, format, compatibility, generated code
	@sh deploy/local/check_protos.sh

k8s: dev-install ## the manifests of deploy/k8s: schemas of three Kubernetes versions, checkov
	@sh deploy/k8s/check.sh

images: dev-install ## an image of each service, with docker, buildah or podman: docs/images.md
	.venv/bin/python deploy/images/build.py $(IMAGES)

images-test: dev-install ## one question through the images' containers, as the manifests have them
	.venv/bin/python -m pytest tests/e2e/test_images.py $(PYTEST_ARGS)

locks: dev-install ## what the images hold, from the pyproject files and constraints.txt
	.venv/bin/python deploy/images/lock.py

observability: dev-install ## write dashboards, the PrometheusRule and docs/metrics.md anew
	.venv/bin/python -m deploy.observability

check: lint types protos-check test ## everything that a change must pass

clean: ## remove what was installed and built; your data in .quintet stays
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
