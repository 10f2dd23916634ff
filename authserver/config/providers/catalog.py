"""Every provider by the name of its preset."""

from collections.abc import Mapping
from typing import Final

from authserver.config.providers.atlassian import ATLASSIAN
from authserver.config.providers.auth0 import AUTH0
from authserver.config.providers.github import GITHUB, GITHUB_APP, GITHUB_OAUTH_APP
from authserver.config.providers.gitlab import GITLAB
from authserver.config.providers.google import GOOGLE
from authserver.config.providers.linear import LINEAR
from authserver.config.providers.microsoft import MICROSOFT
from authserver.config.providers.notion import NOTION
from authserver.config.providers.okta import OKTA
from authserver.config.providers.shape import Provider
from authserver.config.providers.slack import SLACK

PROVIDERS: Final[Mapping[str, Provider]] = {
    "atlassian": ATLASSIAN,
    "auth0": AUTH0,
    "github": GITHUB,
    "github-app": GITHUB_APP,
    "github-oauth-app": GITHUB_OAUTH_APP,
    "gitlab": GITLAB,
    "google": GOOGLE,
    "linear": LINEAR,
    "microsoft": MICROSOFT,
    "notion": NOTION,
    "okta": OKTA,
    "slack": SLACK,
}
