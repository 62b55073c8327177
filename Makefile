# Everything starts here: `make demo` talks to a real model, `make test` runs the suite.

PYTHON ?= python3
# The torch that development and CI use; users may have any from 2.11 on.
TORCH ?= torch==2.13.0
MINUTES ?= 30
PROMPT ?= What is the capital of France?
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check format scorecard traces soak bench quality schemathesis structured conformance fuzz mutate docs clean

.venv/.base: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) "$(TORCH)"
	$(PIP_INSTALL) -e .
	touch $@

.venv/.dev: .venv/.base
	$(PIP_INSTALL) "$(TORCH)" -e ".[dev]"
	touch $@

demo: .venv/.base  ## fetch a small instruct model and stream an answer
	$(BIN)/neuron chat smollm2 "$(PROMPT)" --temperature 0

test: .venv/.dev  ## the whole suite; offline apart from installation
	$(BIN)/python -m pytest

check: .venv/.dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev .venv-peers/.made  ## speed beside llama.cpp and transformers, in one run; PARTS="…" measures some of it anew
	$(BIN)/python -m benchmarks.run $(PARTS)

.venv-peers/.made: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

quality: .venv/.dev  ## perplexity and divergence of each weight format
	$(BIN)/python -m benchmarks.quality

schemathesis: .venv/.dev  ## thousands of generated requests against the server code, from its own OpenAPI document
	$(BIN)/python -m tests.support.fuzz --max-examples 100

structured: .venv/.dev  ## 200 random schemas and 200 required tool calls on the real model
	$(BIN)/python -m tests.support.structured 200

conformance: .venv/.dev  ## docs/conformance.md, out of a test run
	$(BIN)/python -m pytest -p tests.support.conformance tests/daemon/test_every_field.py tests/e2e/test_conformance.py

fuzz: .venv/.dev  ## our own parsers, coverage-guided, half a minute each; needs pip install -e ".[fuzz]"
	$(BIN)/python -m tests.reliability.fuzz 30

mutate: .venv/.dev  ## 10,000 mutated model files through the loaders, in a process of their own
	$(BIN)/python -m tests.reliability.mutate 10000

traces: .venv/.dev  ## 20,000 random overlapping requests and 4,000 over HTTP, each that finishes replayed alone
	NEURON_TRACE_REQUESTS=20000 NEURON_HTTP_TRACE_REQUESTS=4000 $(BIN)/python -m pytest --timeout 1800 \
	  tests/reliability/test_traces.py tests/reliability/test_http_traces.py

soak: .venv/.dev  ## docs/soak.md: a random mix of everything against one node for MINUTES (30)
	$(BIN)/python -m tests.reliability.soak $(MINUTES)

scorecard: .venv/.dev  ## docs/scorecard.md: load, faults, bad inputs and right answers, measured in 15 minutes
	$(BIN)/python -m tests.reliability.scorecard

docs: .venv/.dev  ## completions and man pages, from the application
	$(BIN)/python -m neuron.cli.generate

clean:
	rm -rf .venv .venv-peers build *.egg-info
