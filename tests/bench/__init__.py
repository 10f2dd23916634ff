"""Measurements: each figure of ours beside the same figure of a bare aiohttp handler, in one run.

The machines this runs on are shared and noisy, so rounds of ours and of the bare handler
alternate, and only the ratio of their medians says anything. Nothing here is a test.
"""
