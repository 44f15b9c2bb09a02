# make train · make test · make check: each sets up .venv by itself. make help lists the rest.

# The interpreter that .venv is made from; afterwards everything runs in .venv.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: train test check lint dist board lock clean help

train: .venv/ready dataset/sample/test/test.manifest.json ## train on the bundled sample, and show the test accuracy
	$(RUN) run.py --config_set sample
	$(RUN) run.py evaluate --config_set sample

# Tests run in two processes, each of which takes from the other's when it has done its own; plain
# `pytest` runs them in one.
TWO := -n 2 --dist worksteal

test: .venv/ready ## run every test
	$(RUN) -m pytest $(TWO)

# Linters and the fast tests: a minute and a half, before each commit.
check: .venv/ready lint ## run the linters and the fast tests
	$(RUN) -m pytest $(TWO) -m "not slow"

lint: .venv/ready ## run the linters
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# For platforms that take a Python package.
dist: .venv/ready ## build a wheel and a source package of this project into dist/
	rm -rf build
	$(RUN) -m build --no-isolation --outdir dist

board: .venv/ready ## show all runs under out/ in TensorBoard
	TF_CPP_MIN_LOG_LEVEL=3 $(RUN) -m tensorboard.main --logdir out

# One manifest per split; the last one stands for all three.
dataset/sample/test/test.manifest.json: .venv/ready dataset/sample.zip
	for split in train validation test; do \
	  $(RUN) convert_dataset.py --dataset_dir dataset/sample.zip/$$split \
	    --tfrecord_filename $$split --tfrecord_dir dataset/sample/$$split || exit; \
	done

# What a person may install, pinned with hashes for every supported Python and platform.
lock: ## pin all dependencies anew, with hashes
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra develop --extra litert --extra onnx --extra serve \
	  --output-file requirements.lock pyproject.toml

.venv/ready: requirements.lock
	@PYTHON="$(PYTHON)" sh .ci/set_up_venv

# Not out/: it may hold what took hours to train.
clean: ## delete all that can be made again; runs stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

help: ## show these lines
	@sed -nE 's/^([a-z]+):[^#]*## /make \1\t/p' Makefile
