"""The life of stored upstream tokens: fresh enough, refreshed once, ended and revoked.

`refresher` keeps to one refresh per expiry in this process; `refresh_claims` presents a refresh
token once across processes; `termination` ends sessions and purges what no session uses.
Must not know HTTP or a listener.
"""
