"""The admission webhook: gives an annotated pod the sidecar, or says why it may not have it.

Flow: `app` with `review` (or `offline`) reads a pod (`shape`), `injection` asks `decision`, which
settles the annotations (`annotations`), the hazards and clashes in the pod (`hazards`) and what the
sidecar is to be (`sidecar_spec`), and `patch` turns that into `add` operations. Everything between
`app` and `patch` is pure: no HTTP, no clock, no cluster. Nothing here holds a token, a key of a
pod or a Kubernetes client; whatever is decided on lies in the review or in the configuration.
"""
