"""One real node beside a real control plane, on this machine: kubelet, containerd, runc, pod network, DNS, shared storage.

It needs root and Linux. All of it is in namespaces that end with one process, in one folder, and in one cgroup.
"""
