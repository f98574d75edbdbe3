"""How many examples a property is tried on if each of them takes long: few, and many by `--hypothesis-profile many`."""

from hypothesis import settings

costly = settings(max_examples=settings().max_examples // 12, deadline=None)
