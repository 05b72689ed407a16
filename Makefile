# The two commands of a newcomer: make demo, make test. Both set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEMO ?= demo
PHOTOGRAPHS ?= flower_photos

.PHONY: help demo test test-fast bench docs lint stubs chaos clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## the whole way on a drawn sample set: weights, extract, train, label
	$(BIN)/flowerray weights fetch
	$(BIN)/flowerray sample $(DEMO)/sample
	$(BIN)/flowerray run $(DEMO)/sample/labelled $(DEMO)/sample/pile --out $(DEMO)/results \
		--truth $(DEMO)/sample/truth.csv

test: $(READY)  ## every test, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(READY)  ## the tests that start nothing large, for the inner loop
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

chaos: $(READY)  ## fifty rounds of random kills on a cluster of three nodes, about 40 minutes
	$(BIN)/python tests/chaos.py --seeds 50

bench: $(READY)  ## flowerray and what users would run instead, into docs/benchmarks.md; hours
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	# Daft asks for an older pyarrow, one that can't read null features; it runs with ours too.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt daft
	$(BIN)/python benchmarks/speed.py $(PHOTOGRAPHS) --work $(DEMO)/bench

docs: $(READY)  ## docs/commands.md from --help, docs/images from the sample set; needs Chromium
	$(BIN)/python docs/commands.py
	$(BIN)/python docs/pictures.py

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stubs: $(READY)  ## write flowerray/__init__.pyi, the calls' signatures, from the settings
	$(BIN)/python -c "from flowerray.api import stub; print(stub(), end='')" > flowerray/__init__.pyi

clean:  ## remove the environment and the demo's results
	rm -rf .venv $(DEMO)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint,openvino,mlflow]'
	touch $@
