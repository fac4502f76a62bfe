# Everything sets itself up: `make run` and `make test` need python3 with venv, and a package index.

PYTHON ?= python3
BUILD  := build
DOCTOR := $(BUILD)/doctor
DEV    := $(BUILD)/dev
PIP    := -m pip --disable-pip-version-check

.PHONY: run test check clean

# An empty folder is the patient: it gets an interpreter, a torch that fits, and a verified render.
run: $(DOCTOR)/.ready
	@mkdir -p $(BUILD)/patient
	$(DOCTOR)/bin/comfy-doctor run --comfyui $(BUILD)/patient --yes

# Two workers whatever the machine, a file to one of them: see tests/conftest.py on memory.
test: $(DEV)/.ready
	$(DEV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(DEV)/.ready
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy doctor runner manifests
	$(MAKE) test

# The doctor alone: no torch, nothing heavy.
$(DOCTOR)/.ready: pyproject.toml
	$(PYTHON) -m venv $(DOCTOR)
	$(DOCTOR)/bin/python $(PIP) install --quiet --upgrade pip
	$(DOCTOR)/bin/python $(PIP) install --quiet --editable .
	touch $@

# The doctor, the runner with the torch that choice.py would choose here, and the tools.
$(DEV)/.ready: pyproject.toml manifests/torch.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) install --quiet --upgrade pip
	$(DEV)/bin/python $(PIP) install --quiet --editable .
	$(DEV)/bin/python -m doctor fix torch-missing --python $(DEV)/bin/python --yes
	$(DEV)/bin/python $(PIP) install --quiet --editable '.[runner,dev]'
	touch $@

clean:
	rm -rf $(BUILD)
