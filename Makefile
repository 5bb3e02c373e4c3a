# make serve    install, export the default model once, serve it on HOST:PORT
# make test     lint, types, tests
# make bench    what the README claims, measured here: half an hour, with nothing else running
# make digits   train a CNN with each pooling, export and serve them all, count what they get right
# EXTRA=gpu on a GPU host; PYTHON chooses the interpreter.

PYTHON ?= python3
EXTRA ?= cpu
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= efficientnet_lite0

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
export ORT_DISABLE_TELEMETRY = 1

.DEFAULT_GOAL := help
.PHONY: help serve test lint types bench digits clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/serve-$(EXTRA).stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing anypool into .venv (a few minutes the first time: torch is large)"
	$(PIP) --editable '.[$(EXTRA),export]'
	@touch $@

.venv/dev.stamp: .venv/serve-$(EXTRA).stamp
	$(PIP) --editable '.[$(EXTRA),export,dev]'
	@touch $@

artifacts/$(MODEL): | .venv/serve-$(EXTRA).stamp
	$(BIN)/anypool export $(MODEL)

serve: .venv/serve-$(EXTRA).stamp artifacts/$(MODEL)
	@echo "anypool serves $(MODEL) on http://$(HOST):$(PORT)  (API: http://$(HOST):$(PORT)/docs)"
	@echo "try:  curl --data-binary @tests/photos/panda.webp http://$(HOST):$(PORT)/v1/classify"
	@exec $(BIN)/anypool serve --host $(HOST) --port $(PORT) --model $(MODEL)

test: lint types
	$(BIN)/python -m pytest

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp
	$(BIN)/mypy

bench: .venv/dev.stamp artifacts/$(MODEL)
	$(BIN)/anypool inspect artifacts/resnet18/1 >/dev/null 2>&1 || $(BIN)/anypool export resnet18
	$(BIN)/python -m tests.load.bench
	$(BIN)/python -m tests.load.open_loop
	$(BIN)/python -m tests.load.overload
	$(BIN)/python -m tests.load.memory
	$(BIN)/python -m tests.load.ragged
	$(BIN)/python -m tests.service.simulator

digits: .venv/dev.stamp
	$(BIN)/python -m tests.digits

clean:
	rm -rf .venv artifacts build dist
