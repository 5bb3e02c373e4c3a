# make serve    install, export the default model once, serve it on HOST:PORT
# make test     lint, types, tests; test-all adds the slow ones
# make test-gpu EXTRA=gpu   on a GPU host: parity, exactness, times, memory; writes build/gpu-report.md
# make bench    what the README claims, measured here: half an hour, with nothing else running
# make load     what a service carries, over HTTP: HOST=… RATE=… USERS=… STEPS=… MIX=… FILES=… MINUTES=…
# make soak     MINUTES=30 at 70 % of capacity: memory, drift, wrong answers
# make fuzz     bad input of every kind for MINUTES=30, against real servers; what fails is kept as a test
# make digits   train a CNN with each pooling, export and serve them all, count what they get right
# make docker   build the image anypool:cpu, or with TARGET=gpu anypool:gpu; docker-test also runs it
# make lint-docker   check what docker/ holds, without an engine
# make zoo      export and verify the CNNs of torchvision and timm: 6 GB, hours, goes on where it was
# EXTRA=gpu on a GPU host; PYTHON chooses the interpreter.

PYTHON ?= python3
EXTRA ?= cpu
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= efficientnet_lite0
MINUTES ?= 5
TARGET ?= cpu
DOCKER ?= docker

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
export ORT_DISABLE_TELEMETRY = 1
export DOCKER_BUILDKIT = 1

.DEFAULT_GOAL := help
.PHONY: help serve test test-all test-gpu lint types bench load soak fuzz digits docker docker-test lint-docker zoo clean

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

.venv/load.stamp: .venv/serve-$(EXTRA).stamp
	$(PIP) --editable '.[$(EXTRA),export,load]'
	@touch $@

artifacts/%: | .venv/serve-$(EXTRA).stamp
	$(BIN)/anypool export $*

serve: .venv/serve-$(EXTRA).stamp artifacts/$(MODEL)
	@echo "anypool serves $(MODEL) on http://$(HOST):$(PORT)  (a page to try it; API: /docs)"
	@echo "try:  curl --data-binary @tests/photos/panda.webp http://$(HOST):$(PORT)/v1/classify"
	@exec $(BIN)/anypool serve --host $(HOST) --port $(PORT) --model $(MODEL)

test: lint types
	$(BIN)/python -m pytest

test-all: lint types
	$(BIN)/python -m pytest -m "not docker and not gpu"

test-gpu: .venv/dev.stamp
	$(if $(filter gpu,$(EXTRA)),$(BIN)/python -m pip --disable-pip-version-check install --quiet --requirement docker/nvidia.txt)
	NEEDS_GPU=1 $(BIN)/python -m pytest -m gpu tests/gpu

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
	$(BIN)/python -m tests.load.ragged
	$(BIN)/python -m tests.service.simulator

# What was given, here or in the environment, as an option; what was not, is left to the command.
given = $(if $(filter command environment,$(firstword $(origin $1))),--$2 '$($1)')

load: .venv/load.stamp artifacts/$(MODEL)
	$(BIN)/python -m tests.load $(call given,HOST,host) $(call given,RATE,rate) \
	  $(call given,USERS,users) $(call given,STEPS,steps) $(call given,MINUTES,minutes) \
	  $(call given,MIX,mix) $(call given,FILES,files) $(call given,FORM,form) \
	  $(call given,TOGETHER,together) $(call given,FORMATS,formats) $(call given,RESIZE,resize) \
	  $(call given,OBJECTIVE_MS,objective-ms) $(LOAD)

soak: .venv/load.stamp artifacts/$(MODEL)
	$(BIN)/python -m tests.load.soak $(call given,MINUTES,minutes)

fuzz: .venv/dev.stamp artifacts/efficientnet_lite0 artifacts/seed_cnn
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

digits: .venv/dev.stamp
	$(BIN)/python -m tests.digits

# DOCKER_BUILD: more options; DOCKER_NETWORK=host where the engine has no network of its own.
docker: artifacts/$(MODEL)
	$(DOCKER) build --file docker/Dockerfile --target $(TARGET) --tag anypool:$(TARGET) \
	  $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) --build-arg MODEL=$(MODEL) \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
	  --build-arg REVISION=$$(git rev-parse HEAD) $(DOCKER_BUILD) .

docker-test: docker .venv/dev.stamp
	IMAGE=anypool:$(TARGET) $(BIN)/python -m pytest -m docker \
	  tests/docker/test_image.py $(wildcard tests/docker/test_image_$(TARGET).py)

.venv-docker/stamp: docker/checkers.txt
	$(PYTHON) -m venv .venv-docker
	.venv-docker/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

lint-docker: .venv-docker/stamp
	PATH="$(CURDIR)/.venv-docker/bin:$$PATH" docker/lint.sh

.venv-zoo/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-zoo
	grep -v '^torch==' constraints.txt > .venv-zoo/constraints.txt
	.venv-zoo/bin/python -m pip --disable-pip-version-check install --quiet \
	  --constraint .venv-zoo/constraints.txt torch==2.14.1 torchvision==0.29.1 timm==1.0.31 \
	  --editable '.[cpu,export]'
	@touch $@

zoo: .venv-zoo/stamp
	.venv-zoo/bin/python -m tests.zoo.presets
	.venv-zoo/bin/python -m tests.zoo $(ZOO)

clean:
	rm -rf .venv .venv-docker .venv-zoo artifacts build dist
