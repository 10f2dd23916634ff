"""The Attach door: calls of an upstream's API, with a token that the calling code never sees.

Owns `/upstream/NAME/...` of the local API: where a call may go, what of it is sent, and what of the
API's answer comes back. Imported with the first such call. It must not know how tokens are
exchanged, nor the other doors.
"""
