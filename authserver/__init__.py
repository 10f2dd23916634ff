"""Signs users in upstream, keeps their upstream tokens, releases each to its owner only.

Two listeners that share nothing but storage. Public, for MCP clients and browsers:
`public` routes to `authorize` (which asks with a page), `consent` (which sends the user
upstream through `legs`), `callback` (which stores what came back), `token_endpoint`,
`registration` and `revocation`. Internal, for sidecars over mTLS: `internal` turns a certificate
into a workload, `exchange` decides on the release, `refreshing` keeps tokens fresh.

`storage` and `upstream` are the two plug-in points. This package knows no pod, no sidecar and no
Kubernetes.
"""
