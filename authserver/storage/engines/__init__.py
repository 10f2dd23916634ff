"""The storage engines: SQLite and PostgreSQL, their schema, and opening the one a URL names.

An engine implements `storage.contract.Database`. A new engine is a file here, a form of URL in
`url` and a branch in `open`. Knows no record and no flow.
"""
