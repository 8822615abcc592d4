# capivara: `make` lists the targets. Variables: make train LANGUAGE=pt DATA=captions.jsonl
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

LANGUAGE ?= hi
DATA ?= data/train.jsonl
IMAGES ?= images
CAPTIONS ?= data/captions.jsonl
CAPTIONER ?=
SOURCE ?= images
CLASSES ?=
CLEAN ?= data/clean.jsonl
MIN_SCORE ?= 0.2
TEST ?= data/test.jsonl
MODEL ?=
RUN ?= runs/$(LANGUAGE)-lora
MERGED ?= clip-$(LANGUAGE)
DEMO ?= capivara-demo

model_flag = $(if $(MODEL),--model $(MODEL))

.PHONY: help setup newest demo demo-picture test check format bench docs models clean caption translate import score train merge retrieve-eval classify-eval

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Make the environment and install capivara in it

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

newest: ## Run the tests on the newest versions of all dependencies, in .venv-newest
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[dev]'
	.venv-newest/bin/python -m pytest

demo: setup ## The whole job in a small world: train, merge, evaluate, in two minutes
	$(BIN)/capivara demo $(DEMO) --lang $(LANGUAGE) --overwrite
	@echo; echo "capivara is in $(BIN): source $(BIN)/activate"

test: setup ## All tests
	$(BIN)/python -m pytest

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

caption: setup ## Describe images in English: IMAGES, CAPTIONS, CAPTIONER
	$(BIN)/capivara caption $(IMAGES) -o $(CAPTIONS) $(if $(CAPTIONER),--model $(CAPTIONER))

translate: setup ## Translate captions: CAPTIONS, LANGUAGE, DATA
	$(BIN)/capivara translate $(CAPTIONS) --to $(LANGUAGE) -o $(DATA)

import: setup ## Read any data set: SOURCE, CAPTIONS
	$(BIN)/capivara import $(SOURCE) -o $(CAPTIONS)

score: setup ## Keep what is worth learning from: DATA, MIN_SCORE, CLEAN
	$(BIN)/capivara score $(DATA) --by en --min-score $(MIN_SCORE) -o $(CLEAN) $(model_flag)

train: setup ## Train an adapter: LANGUAGE, DATA, MODEL, RUN
	$(BIN)/capivara train --lora --lang $(LANGUAGE) --data $(DATA) $(model_flag) -o $(RUN)

merge: $(MERGED) ## Merge it into its base model: RUN, MERGED

$(MERGED): $(RUN)/run.json
	$(BIN)/capivara merge-lora $(RUN) -o $(MERGED) --overwrite

retrieve-eval: setup ## Evaluate the merged model: TEST, LANGUAGE, MERGED
	$(BIN)/capivara retrieve-eval --data $(TEST) --lang $(LANGUAGE) --model local-dir:$(MERGED) -o $(MERGED).json

classify-eval: setup ## Classify with the merged model: IMAGES, LANGUAGE, MERGED, CLASSES
	$(BIN)/capivara classify-eval --data $(IMAGES) --lang $(LANGUAGE) --model local-dir:$(MERGED) $(if $(CLASSES),--classes $(CLASSES))

clean: ## Remove the environment and what was built
	rm -rf $(VENV) .venv-newest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
