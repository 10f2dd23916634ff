"""What an OAuth client calls without a browser, one file per RFC.

Routes: /oauth/token (RFC 6749), /oauth/revoke (RFC 7009), /oauth/introspect (RFC 7662),
/oauth/userinfo (OpenID Connect Core), /oauth/register (RFC 7591), and the discovery documents
(RFC 8414). Must not know aiohttp or a page.
"""
