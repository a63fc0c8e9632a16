# Needs make and Python 3.11 or newer; everything else is installed into .venv. `make` alone lists the targets.
# Only relative paths are used, so the repository may live under a path with spaces.
.DEFAULT_GOAL := help
.PHONY: help demo results test chaos lint bench docs browser coverage dist clean venv venv-dev venv-docs venv-browser venv-aot
.NOTPARALLEL:

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet
CODE := train.py eval.py setup.py c3r_jax configs tests benchmarks examples tools docs/notebooks
WORKERS ?= 2
DATA ?= runs/data
SETS ?= watch uci_views stamps
SEEDS ?= 5
BUDGET ?= short

help:
	@echo "make demo    set up, train, evaluate, write runs/demo/report.html"
	@echo "make results train all methods on the real sets prepared in DATA=$(DATA) (docs/real_sets.md), into runs/NAME"
	@echo "make test    set up, then lint, types, doctests and tests (with TORCH=2.13.0 also against PyTorch)"
	@echo "make chaos   set up, then try to lose a run, figures in runs/chaos (BUDGET=long: an hour; docs/reliability.md)"
	@echo "make lint    set up, then lint and types only"
	@echo "make bench   set up, then every benchmarks/*.py, figures in runs/benchmarks"
	@echo "make docs    set up, then the documentation as a site in build/site, with every link checked"
	@echo "make browser set up, then reports in a Chromium or Chrome: phone, dark, print; screenshots in runs/browser"
	@echo "make coverage  the share of core, steps, experiments, training and evaluation that their own tests run, at least 90 %"
	@echo "make dist    set up, then the wheel and the source archive in dist/, checked and tried from another directory"
	@echo "make clean   delete .venv and the caches (runs/ is kept)"
	@echo "Choose an interpreter with: make PYTHON=python3.12 demo"

# With glibc 2.35 or newer the C library asks for large pages: XLA on a CPU then spends less of a step in page faults.
# Figures of benchmarks and of chaos are measured without.
demo results test: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

demo: venv
	$(RUN) -m c3r_jax.demo --workdir runs/demo

results: venv
	@set -e; some=""; for name in $(SETS); do \
	  if [ ! -d "$(DATA)/$$name" ]; then \
	    echo "$$name is not prepared in $(DATA), so it is left out: docs/real_sets.md has the commands." >&2; \
	  else some=1; $(RUN) -m c3r_jax.demo --config="configs/$$name.py" --config.data.path="$(DATA)" \
	    --seeds $(SEEDS) --workdir "runs/$$name"; \
	  fi; \
	done; [ -n "$$some" ]

# Reports are opened in a Chromium or Chrome where there is one, by the driver of the [browser] extra.
CHROMIUM = $(shell for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do command -v $$name; done; true)

test: lint venv-aot
	@if [ -n "$(CHROMIUM)" ]; then $(MAKE) --no-print-directory venv-browser \
	  || echo "It could not be installed: tests in a browser are left out." >&2; fi
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal
	@if $(RUN) -c "import torch" 2>/dev/null; then \
	  echo "$(RUN) -m pytest -n $(WORKERS) tests/parity c3r_jax/torch"; $(RUN) -m pytest -n $(WORKERS) tests/parity c3r_jax/torch; \
	fi

chaos: venv-dev
	$(RUN) -m tests.chaos --budget $(BUDGET)

lint: venv-dev
	$(RUN) -m ruff check $(wildcard $(CODE))
	$(RUN) -m ruff format --check $(wildcard $(CODE))
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) -m pyright --pythonpath $(RUN)

bench: venv
	@set -e; mkdir -p runs/benchmarks; for file in benchmarks/*.py; do \
	  name=$$(basename "$$file" .py); echo "== $$file"; \
	  if [ "$$name" = shift ] && [ ! -d weights ]; then echo "left out: no folder weights, see $$file"; continue; fi; $(RUN) "$$file" --json "runs/benchmarks/$$name.json"; \
	done

# Nothing is downloaded by a page; to read it with its search: python -m http.server -d build/site
docs: venv-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
	@echo "The documentation is in build/site/index.html"

browser: venv-dev venv-browser
	$(RUN) -m tests.browser

COVERED := core step experiments training evaluation
coverage: venv-dev
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest -q $(foreach part,$(COVERED),tests/$(part) c3r_jax/$(part))
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report --fail-under=90

dist: venv-dev
	rm -rf build/lib dist
	$(RUN) -m build --quiet
	$(RUN) -m twine check --strict dist/*
	$(RUN) tools/try_wheel.py dist

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist c3r_jax.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A set-up step counts as done when the copy of its input in .venv equals the input. The copy is made last and
# renamed into place, so an interrupted step is done again; an unusable .venv is made anew.
define FIND_PYTHON
found=""; \
for limit in "(3, 14)" "(9,)"; do \
  for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
    if "$$candidate" -c "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < $$limit)" \
      >/dev/null 2>&1; then found="$$candidate"; break 2; fi; \
  done; \
done; \
if [ -z "$$found" ]; then \
  echo "c3r_jax needs Python 3.11 or newer with its venv module (on Debian: the python3-venv package)," \
    "and none was found$(if $(PYTHON), under the name $(PYTHON)). Name one with: make PYTHON=/path/to/python3.12 ..." >&2; \
  exit 1; \
fi
endef

venv:
	@set -e; \
	if [ ! -e $(VENV)/made ] || ! $(RUN) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	  $(FIND_PYTHON); \
	  if [ -d $(VENV) ] && [ ! -e $(VENV)/made ] && [ ! -e $(VENV)/begun ] && [ -n "$$(ls -A $(VENV))" ]; then \
	    echo "$(VENV) was not made by this Makefile, which would delete it: remove it, or name another directory with" \
	      "make VENV=DIRECTORY ..." >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$("$$found" --version)"; \
	  rm -rf $(VENV); mkdir $(VENV); touch $(VENV)/begun; "$$found" -m venv $(VENV); touch $(VENV)/made; \
	fi; \
	if ! cmp -s requirements.txt $(VENV)/requirements.done; then \
	  echo "Installing requirements.txt into $(VENV) (the first time takes some minutes)"; \
	  $(PIP) -r requirements.txt; \
	  cp requirements.txt $(VENV)/requirements.tmp; mv $(VENV)/requirements.tmp $(VENV)/requirements.done; \
	fi

# The tools of the [dev] extra are read from pyproject.toml, with requirements.txt beside them so that they agree.
venv-dev: venv
	@set -e; \
	{ cat requirements.txt pyproject.toml; echo "torch $(TORCH)"; } > $(VENV)/dev.tmp; \
	if ! cmp -s $(VENV)/dev.tmp $(VENV)/dev.done; then \
	  echo "Installing the [dev] extra of pyproject.toml into $(VENV)"; \
	  $(RUN) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['dev'], sep='\n')" \
	    > $(VENV)/dev-requirements.txt; \
	  $(PIP) -r requirements.txt -r $(VENV)/dev-requirements.txt $(if $(TORCH),"torch==$(TORCH)"); \
	  mv $(VENV)/dev.tmp $(VENV)/dev.done; \
	else rm -f $(VENV)/dev.tmp; \
	fi

# The compiler for TPUs, about 700 MB, in a folder that Python does not search: a JAX that finds it looks for TPUs. Tests
# that compile with it are left out where it cannot be installed.
venv-aot: venv
	@wanted="$$($(RUN) -c "from importlib.metadata import requires; print(next(r.split(';')[0] for r in requires('jax') if r.startswith('libtpu')))")"; \
	if [ "$$(uname -sm)" = "Linux x86_64" ] && [ "$$wanted" != "$$(cat $(VENV)/aot.done 2>/dev/null)" ]; then \
	  echo "Installing the compiler for TPUs ($$wanted) into $(VENV)/aot"; \
	  rm -rf $(VENV)/aot; \
	  if $(PIP) --no-deps --target $(VENV)/aot "$$wanted"; then echo "$$wanted" > $(VENV)/aot.done; \
	  else echo "It could not be installed: its tests are left out." >&2; fi; \
	fi

# Any other extra: its name is the part after "venv-".
venv-docs venv-browser: venv-%: venv
	@set -e; \
	if ! cmp -s pyproject.toml $(VENV)/$*.done; then \
	  echo "Installing the [$*] extra of pyproject.toml into $(VENV)"; \
	  $(RUN) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$*'], sep='\n')" \
	    > $(VENV)/$*-requirements.txt; \
	  $(PIP) -r requirements.txt -r $(VENV)/$*-requirements.txt; \
	  cp pyproject.toml $(VENV)/$*.tmp; mv $(VENV)/$*.tmp $(VENV)/$*.done; \
	fi
