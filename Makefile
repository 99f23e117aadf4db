# The only door: `make help` lists what it opens.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# Handed to pip as it stands, e.g. another index or a proxy.
PIP_ARGS ?=
# Handed to the program behind `model`, `serve`, `test`, …
ARGS ?=
# The first Python on PATH that is new enough; name another one with PYTHON=…
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
# 1: install the CUDA libraries beside ONNX Runtime.
GPU ?= $(shell { command -v nvidia-smi || test -e /proc/driver/nvidia/version; } >/dev/null 2>&1 && echo 1)
# Tests run in so many processes; each takes up to a gigabyte.
JOBS ?= $(shell cpus=$$(getconf _NPROCESSORS_ONLN); echo $$((cpus < 4 ? cpus : 4)))
# Shown by the service's metrics; empty where this is no checkout.
COMMIT = $(shell git rev-parse --short HEAD 2>/dev/null)
REPOSITORY := $(if $(FOLDSERVE_REPOSITORY),$(FOLDSERVE_REPOSITORY),models)

# One stamp a set of extras: pip runs again only when the pins or the extras change.
WITH_GPU := $(if $(filter 1,$(GPU)),-gpu)
RUNTIME := $(VENV)/.installed-runtime$(WITH_GPU)
EVERYTHING := $(VENV)/.installed-everything$(WITH_GPU)
BENCHMARKS := $(VENV)/.installed-benchmarks$(WITH_GPU)
FUZZ := $(VENV)/.installed-fuzz$(WITH_GPU)
AUDIT := $(VENV)/.installed-audit$(WITH_GPU)
comma := ,
GPU_EXTRA := $(if $(WITH_GPU),$(comma)gpu)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(EVERYTHING) ## Virtual environment with everything: serving, exporting, load tests, checks

.PHONY: serve
serve: $(RUNTIME) ## Serve on port 8000, with the default model made first if none is there
	@compgen -G '$(REPOSITORY)/*/*/model*.onnx' >/dev/null || $(MAKE) --no-print-directory model ARGS=
	@FOLDSERVE_COMMIT=$${FOLDSERVE_COMMIT-$(COMMIT)} exec $(BIN)/python -m service $(ARGS)

.PHONY: model
model: $(RUNTIME) ## Train, fold, prove and publish a model (ARGS="--dataset mnist --name mnist" for another)
	$(BIN)/python -m model_export run --repository '$(REPOSITORY)' $(ARGS)

.PHONY: check
check: $(EVERYTHING) ## Lint, format, import contracts and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: test
test: $(EVERYTHING) ## All tests (ARGS="-k batcher" for some of them; JOBS=1 one after the other)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# Their pins and ours exclude each other (protobuf), so they live in an environment of their own.
CLIENTS := .venv-clients

.PHONY: clients
clients: $(EVERYTHING) ## Ask the service with Triton's and KServe's own clients, unmodified
	@test -x $(CLIENTS)/bin/pip || "$(PYTHON)" -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install -qq $(PIP_ARGS) -r tests/clients/requirements.txt
	CLIENTS_PYTHON=$(CLIENTS)/bin/python $(BIN)/python -m pytest tests/clients $(ARGS)

.PHONY: grpc
grpc: $(EVERYTHING) ## Compile the protocol definition of the gRPC interface again
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. service/api/rpc/open_inference.proto

.PHONY: acceptance
acceptance: $(EVERYTHING) ## Train on the data in TEST_DATA_DIR and hold the promised accuracies (minutes)
	$(BIN)/python -m pytest -m acceptance $(ARGS)

# How many requests `endurance` sends; 1000000 takes minutes.
REQUESTS ?= 100000

.PHONY: endurance
endurance: $(EVERYTHING) ## Count every request through disconnects, kills and restarts; slow and hostile clients (REQUESTS=1000000)
	REQUESTS=$(REQUESTS) $(BIN)/python -m pytest -m endurance -s $(ARGS)

.PHONY: soak
soak: $(EVERYTHING) ## The part of endurance that looks for growth: memory, threads, descriptors (REQUESTS=1000000)
	REQUESTS=$(REQUESTS) $(BIN)/python -m pytest -m endurance -s tests/endurance/test_soak.py $(ARGS)

.PHONY: gpu-check
gpu-check: $(RUNTIME) ## Prove that CUDA is really active and agrees with the CPU; nothing to do without a GPU
	@$(BIN)/python -m benchmarks.gpu_check --repository '$(REPOSITORY)' $(ARGS)

# Of a load test. SHAPE closed: so many users who wait; steady, soak, sizes, spike: so many arrivals a second;
# knee: up to which rate does it hold, from RATE on? MODEL (a,b) and IMAGES (a folder) choose what is asked.
HOST ?= http://127.0.0.1:8000
USERS ?= 8
DURATION ?= 10
SHAPE ?= closed
RATE ?= 200
OBJECTIVE ?= p99<100ms, errors<0.1%

.PHONY: loadtest
loadtest: $(EVERYTHING) ## Drive the service and judge it: USERS=8, or SHAPE=knee; DURATION=60 OBJECTIVE="p99<100ms"
	@$(BIN)/python -m loadtest --host '$(HOST)' --start '$(MAKE) --no-print-directory serve' \
		--shape $(SHAPE) --users $(USERS) --rate $(RATE) --duration $(DURATION) \
		--objective '$(OBJECTIVE)' --model '$(MODEL)' $(if $(IMAGES),--pictures '$(IMAGES)') $(ARGS)

.PHONY: bench-folding
bench-folding: $(BENCHMARKS) ## The fold beside public tools, as docs/folding-comparison.md (some minutes; ARGS="--minutes 8" in pieces)
	$(BIN)/python -m benchmarks.folding --write docs/folding-comparison.md $(ARGS)

.PHONY: bench-folding-speed
bench-folding-speed: $(EVERYTHING) ## Folded against unfolded, as docs/folding-speed.md (on a quiet machine)
	$(BIN)/python -m benchmarks.folding.speed --write docs/folding-speed.md $(ARGS)

.PHONY: bench-runs
bench-runs: $(EVERYTHING) ## A whole run for each of three data sets, as docs/runs.md (a quarter of an hour; ARGS="--data-dir DIR")
	$(BIN)/python -m benchmarks.runs --write docs/runs.md $(ARGS)

.PHONY: bench-planning
bench-planning: $(EVERYTHING) ## Planned normalisation against the article's, as docs/planning.md (half an hour)
	$(BIN)/python -m benchmarks.planning --write docs/planning.md $(ARGS)

.PHONY: bench-precision
bench-precision: $(EVERYTHING) ## int8 beside float32 in interleaved pairs, on a quiet machine (ARGS="--batches 8")
	$(BIN)/python -m benchmarks.precision $(ARGS)

# Of `bench`: where its page goes; empty: nowhere, as it has to be when only a part is measured.
PAGE ?= docs/serving-comparison.md

.PHONY: bench
bench: $(BENCHMARKS) ## Our service beside others, with wrk, on a quiet machine, as docs/serving-comparison.md (an hour; PAGE= ARGS="--workloads small")
	$(BIN)/python -m benchmarks.serving $(if $(PAGE),--write '$(PAGE)') $(ARGS)

.PHONY: bench-overload
bench-overload: $(EVERYTHING) ## Three times the capacity, clients on other cores (ARGS="--rounds 5 --model digits")
	$(BIN)/python -m benchmarks.overload --repository '$(REPOSITORY)' $(ARGS)

.PHONY: bench-profile
bench-profile: $(BENCHMARKS) ## Where a request's time goes, as docs/profile.md (ARGS="--clients 8 --model digits")
	$(BIN)/python -m benchmarks.request_profile --repository '$(REPOSITORY)' --write docs/profile.md $(ARGS)

.PHONY: monitor
monitor: $(RUNTIME) ## The service with Prometheus and Alertmanager beside it, until Ctrl-C
	@$(BIN)/python -m deploy.monitor --host '$(HOST)' --start '$(MAKE) --no-print-directory serve' $(ARGS)

# Any of the three builds the same image; buildah and podman need --format docker for the health check.
BUILDER ?= $(shell for builder in docker podman buildah; do command -v "$$builder" >/dev/null && { echo "$$builder"; break; }; done)
IMAGE ?= foldserve
TARGET ?= cpu

.PHONY: image
image: ## Build the container image foldserve:cpu (TARGET=gpu; ARGS="--build-arg BASE=… --build-arg MODELS=models")
	@test -n "$(BUILDER)" || { echo "Install docker, podman or buildah to build an image." >&2; exit 1; }
	$(BUILDER) build $(if $(filter docker,$(BUILDER)),,--format docker) --target $(TARGET) -t $(IMAGE):$(TARGET) --build-arg COMMIT=$(COMMIT) $(ARGS) .

# The `gpu` extra stays out: torch's CUDA build and ONNX Runtime each name the CUDA libraries they need.
# torch without its local suffix holds for the CPU and the CUDA build; the plain onnxruntime is for machines
# where the GPU build has no wheels.
.PHONY: constraints
constraints: $(EVERYTHING) ## Compile the pins in constraints.txt again
	$(BIN)/pip-compile $(PIP_ARGS) --quiet --upgrade --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--extra export --extra grpc --extra remote --extra loadtest --extra tracing --extra dev --extra bench --extra audit --extra fuzz --output-file $@.txt pyproject.toml
	sed -i.old -E 's/^(torch==[0-9.]+)\+.*/\1/; s/^(onnxruntime)-gpu(==[0-9.]+).*/&\n\1\2/' $@.txt
	rm $@.txt.old

# For each of the four targets.
FUZZ_SECONDS ?= 12

.PHONY: fuzz
fuzz: $(FUZZ) ## Search for bytes that break decoding, forms, tensors or metadata (FUZZ_SECONDS=12 a target)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

# Random requests for each route.
EXAMPLES ?= 200

.PHONY: contract
contract: $(EVERYTHING) ## Random requests for every route of docs/openapi.json, and every answer held to it (EXAMPLES=200)
	CONTRACT_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/service/test_contract.py $(ARGS)

# Without a network: a file that was brought along, osv.dev's export for PyPI.
ADVISORIES ?=

.PHONY: audit
audit: $(AUDIT) ## Pins, installed files, withdrawn releases, known weaknesses; offline with ADVISORIES=all.zip
	$(BIN)/python -m deploy.audit $(if $(ADVISORIES),--advisories '$(ADVISORIES)') $(ARGS)

.PHONY: sbom
sbom: $(AUDIT) ## What is installed, as a CycloneDX bill of materials: reports/sbom.json
	@mkdir -p reports
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --short-PURLs \
		--output-reproducible --output-file reports/sbom.json $(ARGS) $(BIN)/python

.PHONY: clean
clean: ## Remove caches, reports and the virtual environment (models stay)
	rm -rf $(VENV) $(CLIENTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache reports build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install = \
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Foldserve needs Python 3.11 or newer. Install one, or name it: make $@ PYTHON=/path/to/python" >&2; exit 1; }; \
	test -x $(BIN)/pip || "$(PYTHON)" -m venv $(VENV); \
	$(BIN)/pip install -qq $(PIP_ARGS) -c constraints.txt -e '.[$(1)]'; \
	touch $@

$(RUNTIME): pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies into $(VENV) (once; a minute or so) …"
	$(call install,export$(GPU_EXTRA))

$(EVERYTHING): pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies into $(VENV) (once; a minute or so) …"
	$(call install,export$(comma)grpc$(comma)remote$(comma)loadtest$(comma)tracing$(comma)dev$(GPU_EXTRA))

$(BENCHMARKS): pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies into $(VENV) (once; a minute or so) …"
	$(call install,export$(comma)grpc$(comma)remote$(comma)loadtest$(comma)tracing$(comma)dev$(comma)bench$(GPU_EXTRA))

$(AUDIT): pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies into $(VENV) (once; a minute or so) …"
	$(call install,audit$(GPU_EXTRA))

$(FUZZ): pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies into $(VENV) (once; a minute or so) …"
	$(call install,export$(comma)dev$(comma)fuzz$(GPU_EXTRA))
