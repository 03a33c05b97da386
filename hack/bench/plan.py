"""One decision of the control loop for a run in training, compared with parsing the same object as JSON.

Target: at most 300 us.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from figures import machine, spread, timed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
CALLS = 200
REPEATS = 15


def main() -> None:
    """Print the figures."""
    from finetune_contract.progress import Progress, line
    from finetune_operator.core.observation import Observed
    from finetune_operator.core.plan import plan
    from finetune_operator.core.reads import needs
    from finetune_operator.core.run import Run
    from world import NOW, SETTINGS, World

    world = World.new()
    while True:
        decision = world.decide()
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        if (training := Run.parse(world.run).stages["training"]).child_uid:
            break
        for ref in world.active():
            world.finish(ref)
    document = json.loads(json.dumps(world.run))
    run = Run.parse(document)
    pods = world.pods_of(training.child_kind, training.child_name, "training")
    log = f"noise\n{line(Progress(40, step=4, total_steps=10, loss=2.5, time=1))}\n" * 20
    objects = {ref: world.objects[ref] for ref in needs(run, SETTINGS) if ref in world.objects}
    observed = Observed(SETTINGS, objects, {"training": pods}, {pods[0].name: log})
    text = json.dumps(document)

    def decide() -> None:
        for _ in range(CALLS):
            plan(Run.parse(document), observed, NOW)

    def read() -> None:
        for _ in range(CALLS):
            json.loads(text)

    print("plan, mid-run")
    print(machine())
    print(f"  json.loads of the object, {len(text)} bytes (baseline): {spread(timed(read, REPEATS), 'us', 1e6 / CALLS)}")
    print(f"  plan: {spread(timed(decide, REPEATS), 'us', 1e6 / CALLS)}")


if __name__ == "__main__":
    main()
