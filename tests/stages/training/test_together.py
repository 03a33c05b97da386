"""Several processes: the same losses as one, the cause of a failure and not its echo, and no one left behind."""

from __future__ import annotations

import re
import signal
import socket
import sys
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from finetune_contract.documents import LoraInputs, OsftInputs


def trainer_variables(nodes: int, per_node: int) -> list[dict[str, str]]:
    """Kubeflow Trainer's variables for each pod of a job, with a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {
        "PET_NNODES": str(nodes), "PET_NPROC_PER_NODE": str(per_node), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }  # fmt: skip
    return [{**shared, "PET_NODE_RANK": str(rank)} for rank in range(nodes)]


def two_workers() -> dict[str, str]:
    """One pod of two processes."""
    return trainer_variables(1, 2)[0]


def two_nodes() -> list[dict[str, str]]:
    """Two pods of one process."""
    return trainer_variables(2, 1)


def losses(ended: Any) -> list[float]:
    assert ended.code == 0, ended.errors
    return [point.loss for point in ended.result.history]


def workers_of(running: Any) -> dict[int, psutil.Process]:
    """The workers that an agent has started, by rank."""
    workers = psutil.Process(running.process.pid).children(recursive=True)
    return {int(worker.environ()["RANK"]): worker for worker in workers if "RANK" in worker.environ()}


def gone(workers: dict[int, psutil.Process]) -> bool:
    """Whether they end soon."""
    return not psutil.wait_procs(list(workers.values()), timeout=20)[1]


ALGORITHMS = [
    {"algorithm": "sft"},
    {"algorithm": "osft", "osft": OsftInputs()},
    {"algorithm": "lora", "lora": LoraInputs(4, 8, packing=True), "max_seq_len": 160},
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=["sft", "osft", "lora"])
def test_processes_in_pods_train_as_one_does(new_bench, inputs, algorithm, tmp_path):
    stage_inputs, single, together, apart = inputs(**algorithm), new_bench(), new_bench(), new_bench()
    one = single.train(stage_inputs)
    two = together.train(stage_inputs, environment=two_workers())
    first, second = (apart.start(stage_inputs, environment=environment) for environment in two_nodes())
    pods, other = first.wait(), second.wait()
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert losses(pods) == pytest.approx(losses(one), rel=1e-4)
    for ended in (two, pods):
        assert (ended.result.outputs["processes"], ended.result.outputs["samplesSeen"]) == (2, 100)
        assert ended.result.metrics["tokens"] == one.result.metrics["tokens"]
        assert ended.result.metrics.get("osft_leak", 0) < 1e-3
    assert (other.code, other.message) == (0, "")  # one result a job

    weights = load_file(single.path("final_model/model.safetensors"))
    for bench in (together, apart):
        for name, tensor in load_file(bench.path("final_model/model.safetensors")).items():
            assert float((tensor - weights[name]).abs().max()) < 1e-3, name
        assert bench.leftovers() == []
        assert len(bench.path("pipeline_log.txt").read_text().splitlines()) == 1
        assert {path.name for path in bench.path("logs").iterdir()} == {"training.1.1.0.log", "training.1.1.1.log"}

    (tmp_path / "torch.py").write_text("raise ImportError('not needed')")
    again = together.train(stage_inputs, attempt="1.2", environment={**two_workers(), "PYTHONPATH": str(tmp_path)})
    assert (again.code, again.result.outputs) == (0, two.result.outputs)


def test_two_pods_of_two_processes(bench, inputs):
    first, second = (bench.start(inputs(), environment=environment) for environment in trainer_variables(2, 2))
    ended, other = first.wait(), second.wait()
    assert ended.code == 0, ended.errors
    assert (ended.result.outputs["processes"], ended.result.outputs["samplesSeen"]) == (4, 100)
    assert (other.code, other.message) == (0, "")
    assert {path.name for path in bench.path("logs").iterdir()} == {f"training.1.1.{rank}.log" for rank in range(4)}


def test_the_workers_reason_is_the_pods_reason(bench, inputs):
    ended = bench.train(inputs(max_seq_len=8), environment=two_workers())
    assert (ended.code, ended.reason) == (65, "BadTrainingValue")
    assert "Traceback" not in ended.errors
    lines = bench.path("logs/training.1.1.0.log").read_text().splitlines()
    of_worker = {
        line for line in lines if re.match(r"\[rank [01]\]: BadTrainingValue: ", line)
    }  # the other one may have been stopped
    of_pod = [line for line in lines if line.startswith("BadTrainingValue: ")]
    assert of_worker
    assert all(lines.count(line) == 1 for line in of_worker), "copied once"
    assert len(of_pod) == 1
    assert len(bench.path("pipeline_log.txt").read_text().splitlines()) == 1


def test_the_pod_that_failed_reports_the_cause_and_the_other_one_that_it_lost_it(bench, inputs):
    both = (inputs(max_seq_len=8), inputs())  # only the first one finds its rows too long
    first, second = (
        bench.start(stage_inputs, environment=environment) for stage_inputs, environment in zip(both, two_nodes(), strict=True)
    )
    assert (first.wait().reason, first.process.returncode) == ("BadTrainingValue", 65)
    other = second.wait()
    assert (other.reason, other.code) == ("ProcessGroupTimeout", 75)
    assert "process 1 of 2 lost process 0" in other.result.message


def test_a_pod_whose_peer_never_comes_gives_up(bench, inputs):
    environment = {**two_nodes()[1], "INSTRUCTLAB_NCCL_TIMEOUT_MS": "2000"}
    ended = bench.train(inputs(), environment=environment)
    assert (ended.reason, ended.code) == ("ProcessGroupTimeout", 75)


def test_agents_that_do_not_meet_give_up(bench, inputs):
    environment = {**trainer_variables(2, 2)[1], "INSTRUCTLAB_NCCL_TIMEOUT_MS": "2000"}
    ended = bench.train(inputs(), environment=environment)
    assert (ended.reason, ended.code) == ("ProcessGroupTimeout", 75)
    assert "training: pod 1 of 2 cannot reach the others at 127.0.0.1:" in ended.result.message
    assert "Traceback" not in ended.result.message


@pytest.mark.parametrize("per_node", [1, 2])
def test_a_port_that_is_in_use_is_reported(bench, inputs, per_node):
    environment = trainer_variables(2, per_node)[0]
    with socket.create_server(("", int(environment["PET_MASTER_PORT"]))):
        ended = bench.train(inputs(), environment=environment)
    assert (ended.reason, ended.code) == ("ProcessGroupTimeout", 75)
    assert ended.result.message == (
        f"training: another program in the pod, or on its node with hostNetwork, listens at 127.0.0.1:{environment['PET_MASTER_PORT']},"
        " which the training processes need; end it, or set another PET_MASTER_PORT in the runtime."
    )


WATCHDOG = (
    "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE) ran for 600010 milliseconds"
)


@pytest.mark.parametrize(
    ("line", "code", "reason", "sentence"),
    [
        (
            WATCHDOG,
            75,
            "ProcessGroupTimeout",
            "training: process 1 of 2 lost process 0 (Watchdog caught collective operation timeout",
        ),
        ("free(): invalid pointer", 1, "Crashed", "training process 1: it was killed by signal 6"),
    ],
)
@pytest.mark.parametrize("pods", [1, 2])
def test_a_worker_that_nccls_watchdog_aborts_lost_its_peer(bench, inputs, tmp_path, line, code, reason, sentence, pods):
    """Without GPUs there is no watchdog, so the worker writes its line and aborts, as the watchdog's thread does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "def end():\n"
        f"    log = os.path.join({str(bench.path('logs'))!r}, 'training.1.1.0.log')\n"
        "    while not (os.path.exists(log) and '\"currentStep\": 3' in open(log).read()):\n"
        "        time.sleep(0.05)\n"
        f"    os.write(2, {line!r}.encode() + bytes([10]))\n"
        "    os.abort()\n"
        "if os.environ.get('RANK') == '1':\n"
        "    threading.Thread(target=end, daemon=True).start()\n"
    )
    environments = trainer_variables(1, 2) if pods == 1 else two_nodes()
    running = [bench.start(inputs(epochs=1000), environment={**each, "PYTHONPATH": str(tmp_path)}) for each in environments]
    ended = [program.wait(timeout=90) for program in running][-1]
    assert (ended.code, ended.reason) == (code, reason), ended.errors
    assert sentence in ended.result.message
    assert f"[rank 1]: {line}" in ended.errors
    assert sum(line in log.read_text() for log in bench.path("logs").iterdir()) == 1


def test_sigterm_reaches_the_workers(bench, inputs):
    running = bench.start(inputs(epochs=1000), environment=two_workers())
    bench.wait_for(lambda seen: (seen.step or 0) > 3)
    workers = workers_of(running)
    running.process.send_signal(signal.SIGTERM)
    ended = running.wait(timeout=30)
    assert (ended.code, ended.reason) == (143, "Interrupted")
    assert set(workers) == {0, 1}
    assert gone(workers)
    assert bench.leftovers() == []
    assert not bench.path("final_model").exists()


def test_sigterm_reaches_the_worker_of_a_pod(bench, inputs):
    pods = [bench.start(inputs(epochs=1000), environment=environment) for environment in two_nodes()]
    bench.wait_for(lambda seen: (seen.step or 0) > 3)
    workers = [workers_of(pod) for pod in pods]
    for pod in pods:
        pod.process.send_signal(signal.SIGTERM)
    ended = [pod.wait(timeout=30) for pod in pods]
    assert {(one.code, one.reason) for one in ended} == {(143, "Interrupted")}
    assert [set(found) for found in workers] == [{0}, {1}]
    assert all(gone(found) for found in workers)


def test_a_killed_worker_is_reported_and_ends_the_others(bench, inputs):
    running = bench.start(inputs(epochs=1000), environment=two_workers())
    bench.wait_for(lambda seen: (seen.step or 0) > 3)
    workers = workers_of(running)
    workers[1].kill()
    ended = running.wait(timeout=60)
    assert (ended.code, ended.reason) == (1, "Crashed")
    assert "training process 1: it was killed by signal 9" in ended.result.message
    assert gone(workers)


def test_workers_do_not_outlive_a_killed_agent(bench, inputs):
    running = bench.start(inputs(epochs=1000), environment=two_workers())
    bench.wait_for(lambda seen: (seen.step or 0) > 3)
    workers = workers_of(running)
    running.process.kill()
    assert gone(workers)
    assert not bench.path("final_model").exists()
