# make train · make test · make check: each sets up .venv by itself.

# The interpreter that .venv is made from; afterwards everything runs in .venv.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: train test check lint dist lock board clean

train: .venv/ready dataset/sample/test/test.manifest.json
	$(RUN) run.py --config_set sample
	$(RUN) run.py evaluate --config_set sample

# Tests run in two processes, each of which takes from the other's when it has done its own; plain
# `pytest` runs them in one.
TWO := -n 2 --dist worksteal

test: .venv/ready
	$(RUN) -m pytest $(TWO)

# Linters and the fast tests: under a minute, before each commit.
check: .venv/ready lint
	$(RUN) -m pytest $(TWO) -m "not slow"

lint: .venv/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# A wheel and a source package of this project, for platforms that take a Python package.
dist: .venv/ready
	rm -rf build
	$(RUN) -m build --no-isolation --outdir dist

# TensorBoard over everything under out/.
board: .venv/ready
	TF_CPP_MIN_LOG_LEVEL=3 $(RUN) -m tensorboard.main --logdir out

# One manifest per split; the last one stands for all three.
dataset/sample/test/test.manifest.json: .venv/ready dataset/sample.zip
	for split in train validation test; do \
	  $(RUN) convert_dataset.py --dataset_dir dataset/sample.zip/$$split \
	    --tfrecord_filename $$split --tfrecord_dir dataset/sample/$$split || exit; \
	done

# What a person may install, pinned with hashes for every supported Python and platform.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra develop --extra litert --extra onnx --extra serve \
	  --output-file requirements.lock pyproject.toml

.venv/ready: requirements.lock
	@PYTHON="$(PYTHON)" sh .ci/set_up_venv

# All that can be made again. Runs stay: out/ holds what training took hours for.
clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
