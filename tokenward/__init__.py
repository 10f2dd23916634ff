"""`tokenward`: the command line of operators and authors.

It sees all processes and is imported by none of them. What opens storage is in `authserver.admin`;
here are arguments, output and what reads nothing but files. It has no network surface of its own.
"""
