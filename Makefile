# Everything that people and CI run. Needs Python 3.11 or later; Go for the checks that use the API server's own code.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
TRAINER ?= 2.1

.PHONY: run test setup controlplane containers cluster node check lock bench clean

run: setup  ## set up, and run the main job on real data
	$(BIN)/python hack/example/prepare.py
	$(BIN)/finetune run hack/example/finetunerun.yaml --configmap python-docs-tasks=$(HOME)/.cache/finetune-operator/example/tasks
	$(BIN)/finetune clone python-signatures --name python-signatures-sft --set training.algorithm=sft --set training.osft=null || test $$? -eq 3
	$(BIN)/finetune get --experiment python-docs

test: setup check controlplane containers  ## set up, and run every check and test
	$(BIN)/coverage run -m pytest -q -n $(JOBS) --dist worksteal tests/unit tests/property
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='operator/finetune_operator/core/*,operator/finetune_operator/api/*,operator/finetune_contract/*' --fail-under=100
	$(BIN)/python -m pytest -q -rs -n $(JOBS) --dist worksteal tests/node tests/cluster tests/contract tests/faults tests/local tests/model tests/stages tests/cli tests/images tests/reports

setup: .venv/.ready  ## make .venv with everything in it

.venv/.ready: requirements/all.lock requirements/bootstrap.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	test -x $(BIN)/uv || $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements/all.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

controlplane: setup  ## build the Kubernetes of the tests from Go modules: minutes, once, kept outside this folder
	if command -v go >/dev/null; then $(BIN)/python hack/controlplane build && $(BIN)/python hack/argocd; fi

containers: setup  ## what tests in containers need, where they can run: Debian packages, a kubelet, the images; minutes, once
	if [ "$$(id -u)" = 0 ] && command -v go >/dev/null && command -v apt-get >/dev/null; then \
	  $(BIN)/python hack/node packages && $(BIN)/python hack/images packages && $(BIN)/python hack/node build && \
	  $(BIN)/python hack/images build operator stages --base debian; fi

cluster: setup controlplane  ## a control plane with Trainer (TRAINER=2.1 or 2.3), left running: its kubeconfig is printed
	$(BIN)/python hack/controlplane up --trainer $(TRAINER)

node: setup controlplane containers  ## a real node with the tests' control plane, left running: its kubeconfig is printed
	$(BIN)/python hack/node up --trainer $(TRAINER)

check: setup  ## style, types, layers, generated files
	$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python hack/generate.py --check

lock: setup  ## resolve the dependencies anew; the locks hold hashes, no address
	$(BIN)/python hack/lock.py

bench: setup  ## the figures of docs/performance.md
	for bench in command_line plan main_job reuse training evaluation; do $(BIN)/python hack/bench/$$bench.py; done

clean:  ## remove what was made here
	-for trainer in 2.1 2.3 none; do for what in controlplane node; do $(BIN)/python hack/$$what down --trainer $$trainer; done; done
	rm -rf .venv .cache .finetune .coverage* .mypy_cache .pytest_cache .ruff_cache
