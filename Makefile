# `make demo` and `make test` work from a bare clone: they need Python 3.10 or newer, with venv, and make. With a C++
# compiler the fused kernels are built too, and `make test` fails where they cannot be.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
KERNELS := torchact/_kernels.abi3.so
HAS_COMPILER := $(shell command -v $(firstword $(CXX)))
RUN := runs/depth
# What is tested once more without the fused kernels. Compiled and exported code, derivatives of derivatives, functorch's
# transforms, tensors on other devices than the CPU, and what is refused or written about functions do not use them.
WITHOUT_KERNELS := tests/test_autograd.py tests/test_functional.py tests/test_kernels.py tests/test_pairs.py
NEEDS_NO_KERNEL := not compile and not export and not traced and not transforms and not third and not gradgrad \
	and not vmap and not dual and not batched and not meta and not fake and not on_cuda and not checkpointing \
	and not refused and not docstring and not signature and not error_inputs
EVERYTHING := --constraint constraints.txt --no-build-isolation --editable '.[development]'
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Installing leaves byte-compiling to the first import, which has to keep what it makes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo tensorboard test lint docs benchmark wheel clean

help:
	@echo "make demo         train deep networks on real digits and see their gradients vanish, in pictures and TensorBoard"
	@echo "make test         run the tests and the static checks"
	@echo "make tensorboard  open the dashboard of the last demo"
	@echo "make docs         build the documentation, a page for each activation, in docs/_build/html"
	@echo "make benchmark    measure what a call costs beside torch's own"
	@echo "make wheel        build a wheel in dist/, with the fused kernels where there is a C++ compiler"
	@echo "make clean        remove the environment and everything that was made"

demo: $(INSTALLED) $(KERNELS)
	$(BIN)/python -m experiments depth --out $(RUN)
	@if [ -t 1 ]; then $(MAKE) --no-print-directory tensorboard; fi

tensorboard: $(INSTALLED)
	@echo "Serving TensorBoard; Ctrl-C ends it."
	$(BIN)/tensorboard --logdir $(RUN)/tensorboard

ifneq ($(HAS_COMPILER),)
test: export TORCHACT_BUILD ?= 1
endif
test: $(INSTALLED)
	@$(MAKE) --no-print-directory --jobs 2 lint $(KERNELS)
	@$(BIN)/python -c 'import torchact; print(torchact.kernels.status())'
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile
	TORCHACT_KERNELS=0 $(BIN)/python -m pytest --numprocesses auto -k "$(NEEDS_NO_KERNEL)" $(WITHOUT_KERNELS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) $(KERNELS)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html."

benchmark: $(INSTALLED) $(KERNELS)
	$(BIN)/python -m benchmarks overhead

wheel: $(INSTALLED)
	@rm -rf build/lib* build/bdist*
	@$(BIN)/python -c 'from setuptools.build_meta import build_wheel; \
		print("dist/" + build_wheel("dist", {"--global-option": "--quiet"}))'

clean:
	rm -rf .venv build dist torchact/*.so runs docs/_build docs/activations docs/project *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# uv takes a tenth of the time that pip takes. torch comes by pip, whose settings may say which build of it; so does all
# else where pip alone is set up to find packages.
$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "torchact needs Python 3.10 or newer, and $(PYTHON) is older; try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt setuptools wheel torch uv
	TORCHACT_BUILD=0 $(BIN)/uv pip install --quiet --python $(BIN)/python $(EVERYTHING) \
		|| TORCHACT_BUILD=0 $(BIN)/python -m pip install --quiet --no-compile $(EVERYTHING)
	@touch $@

# They are built when torch is there, and again when their sources have changed. Where they cannot be built, this file is
# not made, and the next call tries again.
$(KERNELS): $(INSTALLED) setup.py $(wildcard csrc/* csrc/*/*)
	@rm -f $@
	@$(BIN)/python setup.py --quiet build_ext --inplace
