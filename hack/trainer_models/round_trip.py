"""Read a JSON list of TrainJobs, and write it through the models of kubeflow-trainer-api, in whose environment this runs."""

from __future__ import annotations

import json
import sys

from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

jobs = [TrainerV1alpha1TrainJob.from_dict(document) for document in json.load(sys.stdin)]
json.dump([job.to_dict() for job in jobs], sys.stdout)
