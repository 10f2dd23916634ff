"""The configuration file of the operator: its members, cross checks, presets and live reload.

`settings` is the whole file; `listeners`, `clients` and `upstreams` are its larger sections.
Must not know a flow or HTTP.
"""
