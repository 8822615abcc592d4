# capivara: `make` lists the targets. Variables stand in capitals: make train LANGUAGE=pt DATA=captions.jsonl
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The steps are a chain: each reads what the one before it writes.
LANGUAGE ?= hi
IMAGES ?= images
SOURCE ?= $(IMAGES)
CAPTIONS ?= data/captions.jsonl
TRANSLATED ?= data/translated.$(LANGUAGE).jsonl
DATA ?= data/train.$(LANGUAGE).jsonl
TEST ?= data/test.jsonl
RUN ?= runs/$(LANGUAGE)-lora
MERGED ?= clip-$(LANGUAGE)
SHARDS ?= shards-$(LANGUAGE)
CAPTIONER ?=
MODEL ?=
BASELINE ?= $(or $(MODEL),xlm-roberta-base-ViT-B-32)
CLASSES ?=
CASES ?=
MODULE ?=
SAMPLE ?= 25
TESTS ?=
MIN_SCORE ?= 0.2
DEMO ?= capivara-demo

model_flag = $(if $(MODEL),--model $(MODEL))
# $(call need,FILE,WHAT TO TYPE): stop with one line when a file of the step before is missing.
need = @test -e "$(1)" || { echo "$@ needs $(1): $(2)" >&2; exit 1; }

.PHONY: help setup demo demo-picture test fuzz test-newest test-oldest update golden mutants check format bench docs models clean caption translate import score train merge retrieve-eval classify-eval export

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Make the environment and install capivara in it

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## The whole job in a small world: train, merge, evaluate, in two minutes
	$(BIN)/capivara demo $(DEMO) --lang $(LANGUAGE) --overwrite
	@echo; echo "capivara is in $(BIN): source $(BIN)/activate"

test: setup ## All tests
	$(BIN)/python -m pytest

define newest_environment
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[dev]'
endef

fuzz: setup ## Try 10,000 damaged or hostile inputs per test of them; takes hours
	FUZZ=1 $(BIN)/python -m pytest tests/hostile

test-newest: ## All tests with the newest versions, in .venv-newest; what a package deprecates is an error
	$(newest_environment)
	.venv-newest/bin/python -m pytest -W error

test-oldest: setup ## All tests with the oldest versions that pyproject.toml allows, in .venv-oldest
	$(PYTHON) -m venv --clear .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --compile-bytecode --editable '.[dev]'
	.venv-oldest/bin/python -m pytest

# torch names the exact CUDA packages that it needs, and its builds for CPUs need none: they are not written down.
update: ## Check everything with the newest versions, and write them to constraints.txt
	$(newest_environment)
	$(MAKE) VENV=.venv-newest --assume-old=.venv-newest/.installed check
	(echo "# Versions that the tests are run with. \`make setup\` installs these; \`make update\` writes them."; \
	 .venv-newest/bin/python -m pip freeze --all --exclude pip --exclude-editable | sed -E '/^(nvidia|cuda|triton)/d; s/\+.*//') > constraints.txt

golden: setup ## Record what the commands write, tests/golden/expected, and show what changed; CASES
	OMP_NUM_THREADS=1 GOLDEN_EXACT=1 $(BIN)/python -m tests.golden.record $(CASES)

mutants: setup ## Change SAMPLE small things in MODULE, one by one, and show which of them no test notices; TESTS
	$(BIN)/python -m pip install --quiet 'cosmic-ray>=8.4'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(MODULE) --sample $(SAMPLE) $(if $(TESTS),--tests "$(TESTS)")

check: setup test ## What CI runs: tests, format, lint, import rules, types, stale docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python docs/tools/reference.py --check

format: setup ## Format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure the claims of speed, in about forty minutes
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/retrieval.py --large
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/captioning.py --memory
	$(BIN)/python benchmarks/translation.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/importing.py
	$(BIN)/python benchmarks/classification.py

docs: setup ## Write docs/commands.md from the commands' help
	$(BIN)/python docs/tools/reference.py

demo-picture: setup ## Make docs/demo.svg: what a terminal shows after the demo
	$(BIN)/python docs/tools/demo_picture.py

models: setup ## Make the demo's models again, from nothing
	$(BIN)/python -m capivara_cli.demo.build

caption: setup ## Describe IMAGES in English: writes CAPTIONS; CAPTIONER
	$(call need,$(IMAGES),put your images there or name them: make caption IMAGES=photos)
	$(BIN)/capivara caption $(IMAGES) -o $(CAPTIONS) $(if $(CAPTIONER),--model $(CAPTIONER))

import: setup ## Read any data set, SOURCE, instead of captioning: writes CAPTIONS
	$(call need,$(SOURCE),name your data set: make import SOURCE=captions.csv)
	$(BIN)/capivara import $(SOURCE) -o $(CAPTIONS)

translate: setup ## Translate CAPTIONS into LANGUAGE: writes TRANSLATED
	$(call need,$(CAPTIONS),make caption or make import writes it; CAPTIONS=file names another)
	$(BIN)/capivara translate $(CAPTIONS) --to $(LANGUAGE) -o $(TRANSLATED)

score: setup ## Keep the captions of TRANSLATED that are worth learning from: writes DATA; MIN_SCORE, MODEL
	$(call need,$(TRANSLATED),make translate writes it; TRANSLATED=file names another)
	$(BIN)/capivara score $(TRANSLATED) --by en --min-score $(MIN_SCORE) -o $(DATA) $(model_flag)

train: setup ## Train an adapter for LANGUAGE on DATA: writes RUN; MODEL
	$(call need,$(DATA),make score writes it; DATA=file names another)
	$(BIN)/capivara train --lora --lang $(LANGUAGE) --data $(DATA) $(model_flag) -o $(RUN)

merge: $(MERGED) ## Merge RUN into its base model: writes MERGED

$(MERGED): $(RUN)/run.json
	$(BIN)/capivara merge-lora $(RUN) -o $(MERGED) --overwrite

$(RUN)/run.json:
	@echo "merge needs a complete run in $(RUN): make train makes it; RUN=folder names another" >&2; exit 1

retrieve-eval: setup ## Compare MERGED with BASELINE on TEST
	$(call need,$(MERGED),make merge writes it)
	$(call need,$(TEST),a test set that was not trained on: make retrieve-eval TEST=test.jsonl)
	$(BIN)/capivara retrieve-eval --data $(TEST) --lang $(LANGUAGE) --model local-dir:$(MERGED) --baseline $(BASELINE) -o $(MERGED).json --overwrite

classify-eval: setup ## Classify IMAGES (labelled by folder) with MERGED and with BASELINE; CLASSES
	$(call need,$(MERGED),make merge writes it)
	$(BIN)/capivara classify-eval --data $(IMAGES) --lang $(LANGUAGE) --model local-dir:$(MERGED) --baseline $(BASELINE) $(if $(CLASSES),--classes $(CLASSES))

export: setup ## Write DATA as WebDataset shards for other trainers: writes SHARDS
	$(call need,$(DATA),make score writes it; DATA=file names another)
	$(BIN)/capivara export webdataset $(DATA) -o $(SHARDS)

clean: ## Remove the environment and what was built
	rm -rf $(VENV) .venv-newest .venv-oldest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
