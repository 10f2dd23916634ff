"""OAuth clients: who they are and how they prove it.

A client is configured, registered, or described by a document on its own web site (`directory`).
Must not know a flow, a user or a resource.
"""
