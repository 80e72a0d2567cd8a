# Two commands for everybody:   make export   ·   make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SOURCES := exporter targets tests benchmarks

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: export test fleet check browser devices lint bench clean

export: $(STAMP)  ## export the built-in model for OpenVINO on this machine into out/
	$(BIN)/export --target openvino --output out

test: $(STAMP)  ## static checks, then the whole test suite
	$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory devices || echo "emulated devices cannot be set up here: tests marked qemu are skipped"
	@$(MAKE) --no-print-directory browser || echo "no Chromium here: tests marked browser are skipped"
	$(BIN)/python tests/streams.py

fleet: $(STAMP)  ## every device of ci/devices.toml, one after the other; then report, matrix and gate in fleet/rollout
	ci/fleet

browser:  ## Chromium from this system's packages, for the tests of the report page (root, or sudo without a password)
	@for one in chromium chromium-browser google-chrome; do command -v $$one >/dev/null && exit 0; done; \
	command -v apt-get >/dev/null || { echo "install Chromium with this system's package manager"; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi; \
	{ $$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } \
		>/dev/null 2>&1 || { echo "apt-get may not install here; as root: apt-get install chromium fonts-dejavu-core"; exit 1; }

devices: $(STAMP)  ## QEMU with an ARM and an x86 userland, once, into the user's cache (no root, nothing is installed)
	$(BIN)/exporter devices setup emulated:neoverse-n1 emulated:haswell

lint: $(STAMP)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## against what the peers give by default, interleaved; benchmarks/results/*.json
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.peers --target onnxruntime
	$(BIN)/python -m benchmarks.wall
	$(BIN)/python -m benchmarks.gate_power --runs 600

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[openvino,demo,dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt annoy || \
		echo "annoy could not be built here (it needs a C++ compiler): its tests are skipped"
	@touch $@

clean:
	rm -rf $(VENV) out out-onnxruntime build dist *.egg-info
