"""The demo inside a Kubernetes cluster: what runs in its pods, and what sets them up.

`python -m demo.cluster` runs on the operator's machine; `tls_router` and `client` run in pods.
"""
