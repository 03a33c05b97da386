// The releases of Kubeflow Trainer whose definitions are wanted, but whose programs are not: go.sum pins them.
module finetunerun.io/trainer-models

go 1.24
