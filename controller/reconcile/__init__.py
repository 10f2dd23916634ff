"""Pure reconciliation: observed objects in, desired objects and a status out.

Nothing here reads a clock, calls an API or makes a random number: times and makers of key material
are parameters.
"""
