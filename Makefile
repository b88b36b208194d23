# One command list for people, hooks and CI. Plain `make` shows it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# The plugin for Azure Machine Learning holds MLflow back, so it has an environment of its own.
AZUREML = $(VENV)-azureml
AZUREML_READY = $(AZUREML)/.ready
# Which tests the oldest Spark gets, and the marks of those that Azure Machine Learning's environment gets.
SPARK40 ?= tests
AZURE_TESTS ?= azureml

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types test-azureml test-spark40 bench lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with everything pinned in requirements.lock

# The same as the README's `pip install`, by uv, which takes a third of the time.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(BIN)/python -m pip install --quiet --require-hashes -r /dev/stdin
	$(BIN)/uv pip install --quiet --python $(VENV) --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(VENV) --no-deps --editable .
	touch $@

$(AZUREML_READY): requirements-azureml.lock pyproject.toml $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(AZUREML)
	$(BIN)/uv pip install --quiet --python $(AZUREML) --require-hashes -r requirements-azureml.lock
	$(BIN)/uv pip install --quiet --python $(AZUREML) --no-deps --editable .
	touch $@

demo: $(READY)  ## tell the whole story: train, promote, serve, tune, score, watch, roll back
	$(BIN)/penguins demo

test: $(READY)  ## run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)  ## ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

check: lint types test test-azureml test-spark40  ## all of the above, and the tests in the two other environments

test-azureml: $(AZUREML_READY)  ## run the tests that need the extra azureml, in an environment with it
	$(AZUREML)/bin/python -m pytest -n 4 --dist loadfile -m "$(AZURE_TESTS)"

test-spark40: $(READY)  ## run the Spark tests on the oldest Spark, 4.0, and the MLflow that Azure's plugin holds back
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-spark40
	$(BIN)/uv pip install --quiet --python $(VENV)-spark40 -r requirements-azureml.lock
	$(BIN)/uv pip install --quiet --python $(VENV)-spark40 --no-deps --editable . "pyspark==4.0.*"
	$(VENV)-spark40/bin/python -m pytest -n 2 --dist worksteal -m "spark and not slow" $(SPARK40)

bench: $(READY)  ## measure against the lab's own code; writes docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

lock: $(READY)  ## pin all dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra local --extra databricks --group dev --universal --generate-hashes \
		--python-version 3.11 --no-emit-index-url --custom-compile-command "make lock" -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra local --extra databricks --extra azureml --group dev --universal --generate-hashes \
		--python-version 3.11 --no-emit-index-url --custom-compile-command "make lock" -o requirements-azureml.lock

clean:  ## remove the environments and what runs leave behind
	rm -rf $(VENV) $(AZUREML) $(VENV)-spark40 mlflow.db mlruns spark-warehouse penguins-demo*
