"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager.

`python -m tests.cluster.control_plane` starts one and prints its `KUBECONFIG`. The programs are
built from the Go modules beside this package. Nothing here knows Tokenward.
"""
