"""The version of this build; the package, the images and the admission status carry it."""

from typing import Final

VERSION: Final = "0.1.0"
