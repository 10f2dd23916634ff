"""The internet-facing listener: HTTP only, every decision is in the packages below.

`listener` is the table of routes; `middleware` turns errors into responses. Must not know the
internal listener: the two share storage and nothing else.
"""
