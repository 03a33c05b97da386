# Targets for people and CI. They need Python 3.11 or later, and Go for checks with the API server's own code.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
# With NVIDIA's libraries (cuda) or without (cpu). If unset: the last request, otherwise by the driver of this machine.
ACCELERATOR ?=
# Packages are compiled at their first import, which must keep the byte code.
export PYTHONDONTWRITEBYTECODE :=
TRAINER ?= 2.1
# Sets of libraries for compat; all of them if unset.
SETS ?=

.PHONY: help run test unit setup controlplane containers compat cluster node check lock release release-check bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

run: setup  ## set up, and run the main job on real data
	$(BIN)/python hack/example/prepare.py
	$(BIN)/finetune run hack/example/finetunerun.yaml --configmap python-docs-tasks=$(HOME)/.cache/finetune-operator/example/tasks
	$(BIN)/finetune clone python-signatures --name python-signatures-sft --set training.algorithm=sft --set training.osft=null || test $$? -eq 3
	$(BIN)/finetune get --experiment python-docs

test: setup  ## set up, build prerequisites, run all checks and tests to the end, and print a table
	$(BIN)/python hack/checks.py test --jobs $(JOBS)

unit: setup  ## run the tests of pure code, in less than a minute on two cores, without Go, root and PyTorch
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not go" tests/unit tests/property

setup:  ## make .venv with all packages, or bring it up to date
	@$(PYTHON) hack/bootstrap --accelerator=$(ACCELERATOR)

controlplane: setup  ## build Kubernetes for tests from Go modules, once, outside this folder; it takes minutes
	$(BIN)/python hack/prerequisites controlplane

containers: setup  ## install and build what tests in containers need: Debian packages, a kubelet, the images; it takes minutes
	$(BIN)/python hack/prerequisites containers

cluster: setup controlplane  ## start a control plane with Trainer (TRAINER=2.1 or 2.3), and print its kubeconfig
	$(BIN)/python hack/controlplane up --trainer $(TRAINER)

node: setup controlplane containers  ## start a control plane with a real node, and print its kubeconfig
	$(BIN)/python hack/node up --trainer $(TRAINER)

compat: setup  ## train with the libraries of training images, old and new; SETS="openshift-ai-3.3 newest" chooses some of them
	$(BIN)/python hack/compat test --jobs $(JOBS) $(SETS)

check: setup  ## check style, types, layers, cycles of imports and generated files
	$(BIN)/python hack/checks.py check

lock: setup  ## renew the locks; with PACKAGE="NAME ..." only these packages. They hold hashes and no address
	$(BIN)/python hack/lock.py $(addprefix --package=,$(PACKAGE))

release: setup  ## build and check dist/VERSION: wheel, sdist, images, manifests, notes. DRAFT=1 accepts BASE=debian, IMAGES="operator ..."
	$(BIN)/python hack/release build $(VERSION) $(if $(DRAFT),--draft) $(if $(BASE),--base=$(BASE)) \
	  $(if $(REGISTRY),--registry=$(REGISTRY)) $(if $(IMAGES),--images $(IMAGES))

release-check: setup  ## check dist/VERSION without a network: digests, bills of materials, manifests
	$(BIN)/python hack/release check $(VERSION)

bench: setup  ## measure the figures of docs/performance.md
	for bench in command_line plan diagnosis main_job reuse dataset model_download training evaluation; do $(BIN)/python hack/bench/$$bench.py; done

clean:  ## stop control planes and nodes of this folder, and remove all that was made in it except local runs (.finetune)
	-for trainer in 2.1 2.3 none; do for what in controlplane node; do $(BIN)/python hack/$$what down --trainer $$trainer; done; done
	rm -rf .venv .cache .coverage* .mypy_cache .pytest_cache .ruff_cache
