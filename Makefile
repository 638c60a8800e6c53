# `make demo` and `make test` work from a bare clone: they need Python 3.10 or newer, with venv, and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
RUN := runs/depth
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo tensorboard test lint docs benchmark clean

help:
	@echo "make demo         train deep networks on real digits and see their gradients vanish, in pictures and TensorBoard"
	@echo "make test         run the tests and the static checks"
	@echo "make tensorboard  open the dashboard of the last demo"
	@echo "make docs         build the documentation, a page for each activation, in docs/_build/html"
	@echo "make benchmark    measure what a call costs beside torch's own"
	@echo "make clean        remove the environment and everything that was made"

demo: $(INSTALLED)
	$(BIN)/python -m experiments depth --out $(RUN)
	@if [ -t 1 ]; then $(MAKE) --no-print-directory tensorboard; fi

tensorboard: $(INSTALLED)
	@echo "Serving TensorBoard; Ctrl-C ends it."
	$(BIN)/tensorboard --logdir $(RUN)/tensorboard

test: $(INSTALLED) lint
	$(BIN)/python -m pytest --numprocesses auto

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html."

benchmark: $(INSTALLED)
	$(BIN)/python -m benchmarks overhead

clean:
	rm -rf .venv build dist runs docs/_build docs/activations docs/project *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "torchact needs Python 3.10 or newer, and $(PYTHON) is older; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[development]'
	@touch $@
