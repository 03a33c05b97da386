# Everything that people and CI run. Needs Python 3.11 or later; Go for the checks that use the API server's own code.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

.PHONY: run test setup controlplane containers node check lock bench clean

run: setup  ## set up, and run the main job on real data
	$(BIN)/python hack/example/prepare.py
	$(BIN)/finetune run hack/example/finetunerun.yaml --configmap python-docs-tasks=$(HOME)/.cache/finetune-operator/example/tasks
	$(BIN)/finetune clone python-signatures --name python-signatures-sft --set training.algorithm=sft --set training.osft=null || test $$? -eq 3
	$(BIN)/finetune get --experiment python-docs

test: setup check controlplane containers  ## set up, and run every check and test
	$(BIN)/coverage run -m pytest -q tests/unit tests/property
	$(BIN)/coverage report --include='operator/finetune_operator/core/*,operator/finetune_operator/api/*,operator/finetune_contract/*' --fail-under=100
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal tests/cluster tests/contract tests/faults tests/local tests/model tests/stages tests/cli tests/images
	$(BIN)/python -m pytest -q -rs tests/node

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

node: setup controlplane containers  ## a real node with the tests' control plane, left running: its kubeconfig is printed
	$(BIN)/python hack/node up

check: setup  ## style, types, layers, generated files
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python hack/generate.py --check

lock:  ## resolve the dependencies anew; the locks hold hashes, no address
	$(BIN)/uv lock -q --upgrade
	$(BIN)/uv export -q --no-default-groups --extra operator --format requirements-txt --no-header --no-emit-project -o requirements/operator.lock
	$(BIN)/uv export -q --only-group bootstrap --format requirements-txt --no-header -o requirements/bootstrap.lock
	$(BIN)/uv export -q --all-extras --group dev --format requirements-txt --no-header --no-emit-project -o requirements/all.lock
	for stage in dataset model evaluation registration; do $(BIN)/uv export -q --no-default-groups --extra $$stage --format requirements-txt --no-header --no-emit-project -o requirements/$$stage.lock; done
	$(BIN)/uv export -q --no-default-groups --extra training --extra quantization --format requirements-txt --no-header --no-emit-project -o requirements/training.lock
	$(BIN)/uv export -q --no-default-groups --extra dataset --extra model --extra training --extra quantization --extra evaluation --extra registration --format requirements-txt --no-header --no-emit-project -o requirements/stages.lock
	$(BIN)/uv pip compile -q --upgrade images/build/tools.in --python-version 3.11 --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o images/build/tools.lock
	for release in 2.1 2.3; do echo kubeflow-trainer-api==$$release.0 | $(BIN)/uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-header --no-annotate --no-emit-index-url - -o hack/trainer_models/$$release.lock; done

bench: setup  ## the figures of docs/performance.md
	for bench in command_line plan main_job reuse training evaluation; do $(BIN)/python hack/bench/$$bench.py; done

clean:  ## remove what was made here
	-for trainer in 2.1 2.3 none; do $(BIN)/python hack/controlplane down --trainer $$trainer; done
	-for trainer in 2.1 2.3; do $(BIN)/python hack/node down --trainer $$trainer; done
	rm -rf .venv .cache .finetune .coverage .mypy_cache .pytest_cache .ruff_cache
