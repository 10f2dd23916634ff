"""A fake upstream: a small, real OpenID provider with two users and an API of its own.

`grants` holds everything it remembers and decides, without HTTP; `id_tokens` signs; `protocol`
reads requests and names refusals; `app` is the HTTP around them. It knows nothing of Tokenward:
to it, the authserver is one registered client among thousands. `dialects` are further fakes, which
behave as real providers do.
"""

from demo.upstream.app import FakeUpstream
from demo.upstream.grants import USERS, User

__all__ = ["USERS", "FakeUpstream", "User"]
