"""The embedded default: an image server on loopback that renders prompts into pictures.

Start it with :class:`tasks.providers.embedded.process.EmbeddedServer`, or by hand with
``python -m tasks.providers.embedded``.
"""
