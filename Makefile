# The two commands of a newcomer: make demo, make test. Both set up .venv by themselves: the former
# what jobs need, the latter what tests and lint need beside it.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
READY := .venv/ready
TEST_READY := .venv/test-ready
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

test: $(TEST_READY)  ## every test, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(TEST_READY)  ## the tests that start nothing large, for the inner loop
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

chaos: $(TEST_READY)  ## fifty rounds of random kills on a cluster of three nodes, about 40 minutes
	$(BIN)/python tests/chaos.py --seeds 50

bench: $(TEST_READY)  ## flowerray and what users would run instead, into docs/benchmarks.md; hours
	$(PIP) install -c constraints.txt -e '.[bench]'
	# Daft asks for an older pyarrow, one that can't read null features; it runs with ours too.
	$(PIP) install --no-deps -c constraints.txt daft
	$(BIN)/python benchmarks/speed.py $(PHOTOGRAPHS) --work $(DEMO)/bench

docs: $(TEST_READY)  ## docs/commands.md from --help, docs/images from the sample set; needs Chromium
	$(BIN)/python docs/commands.py
	$(BIN)/python docs/pictures.py

lint: $(TEST_READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stubs: $(TEST_READY)  ## write flowerray/__init__.pyi, the calls' signatures, from the settings
	$(BIN)/python -c "from flowerray.api import stub; print(stub(), end='')" > flowerray/__init__.pyi

clean:  ## remove the environment and the demo's results
	rm -rf .venv $(DEMO)

# TensorFlow is the largest package: where a wheel without its kernels for cards exists, that will do
# for the demo, and nobody compiles against its headers. It saves 1 GB.
TENSORFLOW := $(if $(findstring Linux x86_64,$(shell uname -sm)),tensorflow-cpu,tensorflow)
REQUIRED := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*project["dependencies"], *project["optional-dependencies"]["openvino"], sep="\n")

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -c '$(REQUIRED)' | sed 's/^tensorflow>/$(TENSORFLOW)>/' > .venv/required.txt
	$(PIP) install --no-compile -c constraints.txt -r .venv/required.txt
	$(PIP) install --no-deps -e .
	rm -rf .venv/lib/python*/site-packages/tensorflow/include
	touch $@

$(TEST_READY): $(READY)
	$(PIP) uninstall --yes tensorflow-cpu  # whose files are tensorflow's too
	$(PIP) install -c constraints.txt -e '.[test,lint,openvino,mlflow]'
	touch $@
