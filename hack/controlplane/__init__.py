"""A real Kubernetes control plane on this machine, for tests: etcd, API server, controllers, scheduler, JobSet and Kubeflow Trainer.

Everything is built from Go modules, needs no root and no cluster, and listens on the loopback interface only. There is no node: pods
are created and scheduled, and stay pending until a test sets their state.
"""
