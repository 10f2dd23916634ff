"""`tokenward doctor`: what keeps users from their tokens, each problem with its remedy.

Nothing is changed. `settings_checks` looks at the configuration, `file_checks` at the files that it
names, `storage_checks` at the database, `network_checks` at upstreams and the public address.
"""
