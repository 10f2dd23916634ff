"""What is known of real providers, as data: one module for each, in the shape of `shape`.

Owns no rule and reads no file. `provider_presets` fills a configuration with it,
`docs/reference/providers.md` is made from it.
"""
