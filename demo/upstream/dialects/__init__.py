"""How real providers behave, after their own pages: a table, and one server that acts by it.

`behaviour` is the shape, `table` holds every provider, `grants` what is remembered, `server` the
HTTP around it. The table is written from the provider's pages and knows nothing of Tokenward's
presets: a wrong preset meets an address that does not exist, or an answer that it cannot read.
"""
