# Two commands: `make demo` does the main job, `make test` passes the tests. Both set up .venv first.
# PYTHON=python3.12 picks another interpreter (3.11 or newer).
# EXTRAS=train,test,ray installs more of what pyproject.toml offers.

PYTHON ?= python3
EXTRAS ?= train,test
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean
.DELETE_ON_ERROR:

demo: $(VENV)/ready
	rm -rf runs/demo
	# One thread: these pictures are so small that two would spend their time waiting for each other.
	$(BIN)/bitwren train digits --threads 1 --out runs/demo
	$(BIN)/bitwren evaluate runs/demo

test: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/python -m pytest -n auto --dist loadfile  # a process a core; what a file's tests build, they share

RUNTIME := runtime/CMakeLists.txt runtime/editable/CMakeLists.txt $(wildcard runtime/source/* runtime/include/*)

$(VENV)/ready: pyproject.toml constraints.txt $(RUNTIME)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bitwren needs Python 3.11 or newer, got: $$($(PYTHON) --version 2>&1)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) runs src/bitwren/lib
	find runtime/editable -mindepth 1 ! -name CMakeLists.txt -delete
