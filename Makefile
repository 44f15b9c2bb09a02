# make train, make test, make check: each sets up .venv first. make help lists all targets.

# The interpreter that creates .venv; everything else runs in .venv.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: train test check kills cluster_test fuzz lint docs check-docs bench bench-peers dist board lock clean help

train: .venv/ready dataset/sample/test/test.manifest.json ## train on the bundled sample and print the test accuracy
	$(RUN) run.py --config_set sample >/dev/null
	$(RUN) run.py evaluate --config_set sample >/dev/null

# Two processes share the tests; plain `pytest` runs them in one.
TWO := -n 2 --dist worksteal

test: .venv/ready ## run every test
	$(RUN) -m pytest $(TWO)

# Two minutes, before each commit.
check: .venv/ready lint ## run lint and the fast tests
	$(RUN) -m pytest $(TWO) -m "not slow"

# Half an hour; COUNT=20 takes a few minutes.
COUNT ?= 300
kills: .venv/ready ## kill every kind of work at random times, resume it, compare
	$(RUN) -m tests.kills $(COUNT)

# ARGS='--config_set NAME --train_epochs 2' rehearses a training on your data.
WORKERS ?= 2
ARGS ?=
cluster_test: .venv/ready dataset/sample/test/test.manifest.json ## rehearse a training by WORKERS (2) processes, one of which is killed
	$(RUN) -m tests.rehearsal --workers $(WORKERS) $(ARGS)

SECONDS ?= 600
TARGET ?=

# A target is yaml, manifest, records, archives, images, uploads or snapshots.
fuzz: .venv/ready ## fuzz for SECONDS (600) each target, or TARGET=yaml
	$(RUN) -W ignore -m tests.fuzz $(SECONDS) $(TARGET)

lint: .venv/ready ## run the linters and the type checker
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: .venv/ready ## regenerate the pages and JSON schemas in docs/
	$(RUN) -m project.generate_docs
	$(RUN) -m benchmarks.results

check-docs: .venv/ready ## check that `make docs` would change nothing
	$(RUN) -m project.generate_docs --check

# Measures about 15 minutes, on a machine that does nothing else. docs/benchmarks.md explains it.
# BASE=<revision>: compares with another revision; ONLY=training,inputs: some; SHORT=1: a try.
PEERS ?= .venv-peers/bin/python
bench: .venv/ready ## measure speed against other projects, or against BASE=<revision>
	$(RUN) -m benchmarks --peers $(PEERS) $(if $(BASE),--base $(BASE)) $(if $(ONLY),--only $(ONLY)) $(if $(SHORT),--short)

bench-peers: ## install the other projects into .venv-peers, once
	rm -rf .venv-peers
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --require-hashes --requirement benchmarks/peers.txt

# For platforms that take a Python package.
dist: .venv/ready ## build a wheel and a source package of this project into dist/
	rm -rf build
	$(RUN) -m build --quiet --no-isolation --outdir dist

board: .venv/ready ## show all runs under out/ in TensorBoard
	TF_CPP_MIN_LOG_LEVEL=3 $(RUN) -m tensorboard.main --logdir out

# The manifest that is written last stands for all three splits.
dataset/sample/test/test.manifest.json: .venv/ready dataset/sample.zip
	for split in train validation test; do \
	  $(RUN) convert_dataset.py --dataset_dir dataset/sample.zip/$$split \
	    --tfrecord_filename $$split --tfrecord_dir dataset/sample/$$split || exit; \
	done

# All packages that may be installed, pinned with hashes for every supported Python and platform.
# backports-strenum 1.3 is for Python before 3.11, and pip refuses it; uv ignores that bound. Not as
# a constraint in pyproject.toml: there, uv applies it to the installation too, where it lacks a hash.
# The extras gpu and remote have a file of their own, with what requirements.lock lacks: few need them.
lock: ## pin all dependencies again, with hashes
	echo 'backports-strenum<1.3' | uv pip compile --constraints /dev/stdin --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra beam --extra develop --extra litert --extra mlflow --extra onnx --extra presets --extra search \
	  --extra serve --extra wandb \
	  --output-file requirements.lock pyproject.toml
	uv pip compile --constraints requirements.lock --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --extra gpu --extra remote pyproject.toml | awk \
	  'NR == FNR {if (/^[a-z]/) locked[$$1]; next} /^[a-z]/ {is_new = !($$1 in locked)} is_new' \
	  requirements.lock - > requirements-gpu-remote.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --output-file benchmarks/peers.txt benchmarks/peers.in

.venv/ready: requirements.lock
	@PYTHON="$(PYTHON)" sh .ci/set_up_venv

# Not out/: its runs may have taken hours.
clean: ## delete everything that can be rebuilt, but no runs
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## list these targets
	@sed -nE 's/^([a-z_-]+):[^#]*## /make \1\t/p' Makefile
