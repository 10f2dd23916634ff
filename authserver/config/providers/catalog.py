"""Every provider by the name of its preset."""

from collections.abc import Mapping
from typing import Final

from authserver.config.providers.asana import ASANA
from authserver.config.providers.atlassian import ATLASSIAN
from authserver.config.providers.auth0 import AUTH0
from authserver.config.providers.cognito import COGNITO
from authserver.config.providers.dropbox import DROPBOX
from authserver.config.providers.figma import FIGMA
from authserver.config.providers.generic_oidc import GENERIC_OIDC
from authserver.config.providers.github import GITHUB, GITHUB_APP, GITHUB_OAUTH_APP
from authserver.config.providers.gitlab import GITLAB
from authserver.config.providers.google import GOOGLE
from authserver.config.providers.hubspot import HUBSPOT
from authserver.config.providers.keycloak import KEYCLOAK
from authserver.config.providers.linear import LINEAR
from authserver.config.providers.microsoft import MICROSOFT, MICROSOFT_MULTITENANT
from authserver.config.providers.notion import NOTION
from authserver.config.providers.okta import OKTA
from authserver.config.providers.salesforce import SALESFORCE
from authserver.config.providers.shape import Provider
from authserver.config.providers.slack import SLACK
from authserver.config.providers.zoom import ZOOM

PROVIDERS: Final[Mapping[str, Provider]] = {
    "asana": ASANA,
    "atlassian": ATLASSIAN,
    "auth0": AUTH0,
    "cognito": COGNITO,
    "dropbox": DROPBOX,
    "figma": FIGMA,
    "generic-oidc": GENERIC_OIDC,
    "github": GITHUB,
    "github-app": GITHUB_APP,
    "github-oauth-app": GITHUB_OAUTH_APP,
    "gitlab": GITLAB,
    "google": GOOGLE,
    "hubspot": HUBSPOT,
    "keycloak": KEYCLOAK,
    "linear": LINEAR,
    "microsoft": MICROSOFT,
    "microsoft-multitenant": MICROSOFT_MULTITENANT,
    "notion": NOTION,
    "okta": OKTA,
    "salesforce": SALESFORCE,
    "slack": SLACK,
    "zoom": ZOOM,
}
