"""What outlives a request: clients, logins under way, sessions, connections, and their sealing.

Owns the SQL, the schema and the encryption at rest. Each module holds the few verbs one flow
needs and says of each what it does in one atomic step. Knows no HTTP, no upstream and no flow.
"""
