"""Plug-in point: the providers that sign users in and whose tokens we keep.

Owns every call to an upstream and the reading of its answers. An answer becomes a record or a
typed failure here; no text an upstream sent goes further. Knows no route, no session, no storage
engine.
"""
