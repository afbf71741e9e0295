"""Looking at motion: a picture, and a film that is one self-contained page.

Both need neither a graphics card nor OpenGL.
"""

from __future__ import annotations

from physim.view._film import film
from physim.view._picture import picture
from physim.view._saved import read_trajectory

__all__ = ["film", "picture", "read_trajectory"]
