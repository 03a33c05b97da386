# Everything that people and CI run. Needs Python 3.11 or later; Go for the checks that use the API server's own code.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# With NVIDIA's libraries (cuda) or without (cpu). Unset: the last request, or else as the driver of this machine decides.
ACCELERATOR ?=
# Set-up leaves compiling to byte code to the first import, which is to keep what it compiled whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
TRAINER ?= 2.1

.PHONY: run test unit setup controlplane containers cluster node check lock release release-check bench clean

run: setup  ## set up, and run the main job on real data
	$(BIN)/python hack/example/prepare.py
	$(BIN)/finetune run hack/example/finetunerun.yaml --configmap python-docs-tasks=$(HOME)/.cache/finetune-operator/example/tasks
	$(BIN)/finetune clone python-signatures --name python-signatures-sft --set training.algorithm=sft --set training.osft=null || test $$? -eq 3
	$(BIN)/finetune get --experiment python-docs

test: setup  ## set up, build what tests run on, and run every check and test to the end; the last lines are a table
	$(BIN)/python hack/checks.py test --jobs $(JOBS)

unit: setup  ## the tests of pure code, in less than a minute on two cores; they need neither Go nor root nor PyTorch
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not go" tests/unit tests/property

setup:  ## make .venv with everything in it, or bring it up to date
	@$(PYTHON) hack/bootstrap --accelerator=$(ACCELERATOR)

controlplane: setup  ## build the Kubernetes of the tests from Go modules: minutes, once, kept outside this folder
	$(BIN)/python hack/prerequisites controlplane

containers: setup  ## what tests in containers need, where they can run: Debian packages, a kubelet, the images; minutes, once
	$(BIN)/python hack/prerequisites containers

cluster: setup controlplane  ## a control plane with Trainer (TRAINER=2.1 or 2.3), left running: its kubeconfig is printed
	$(BIN)/python hack/controlplane up --trainer $(TRAINER)

node: setup controlplane containers  ## a real node with the tests' control plane, left running: its kubeconfig is printed
	$(BIN)/python hack/node up --trainer $(TRAINER)

check: setup  ## style, types, layers, generated files
	$(BIN)/python hack/checks.py check

lock: setup  ## renew the locks; with PACKAGE="NAME ..." only these packages. They hold hashes and no address
	$(BIN)/python hack/lock.py $(addprefix --package=,$(PACKAGE))

release: setup  ## build and check dist/VERSION: wheel, sdist, images, manifests, notes. DRAFT=1 accepts BASE=debian, IMAGES="operator ..."
	$(BIN)/python hack/release build $(VERSION) $(if $(DRAFT),--draft) $(if $(BASE),--base=$(BASE)) \
	  $(if $(REGISTRY),--registry=$(REGISTRY)) $(if $(IMAGES),--images $(IMAGES))

release-check: setup  ## check dist/VERSION without a network: digests, bills of materials, manifests
	$(BIN)/python hack/release check $(VERSION)

bench: setup  ## the figures of docs/performance.md
	for bench in command_line plan main_job reuse training evaluation; do $(BIN)/python hack/bench/$$bench.py; done

clean:  ## remove what was made here
	-for trainer in 2.1 2.3 none; do for what in controlplane node; do $(BIN)/python hack/$$what down --trainer $$trainer; done; done
	rm -rf .venv .cache .finetune .coverage* .mypy_cache .pytest_cache .ruff_cache
