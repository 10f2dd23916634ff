// oidc-provider, taught to exchange tokens (RFC 8693) by its own registerGrantType.
// PORT and REDIRECT_URI come from the environment; it prints a line once it listens.
import { Provider } from "oidc-provider";

const GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const { PORT, REDIRECT_URI } = process.env;

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  clients: [
    {
      client_id: "tokenward",
      client_secret: "upstream secret canary",
      application_type: "native",
      redirect_uris: [REDIRECT_URI],
      grant_types: ["authorization_code", GRANT_TYPE],
    },
  ],
  scopes: ["openid", "orders.read", "orders.write"],
  features: { introspection: { enabled: true }, revocation: { enabled: true } },
});

provider.registerGrantType(
  GRANT_TYPE,
  async (ctx) => {
    const { params, client } = ctx.oidc;
    const subject = await provider.AccessToken.find(params.subject_token);
    if (!subject || params.subject_token_type !== ACCESS_TOKEN) {
      ctx.status = 400;
      ctx.body = { error: "invalid_request" };
      return;
    }
    const token = new provider.AccessToken({
      accountId: subject.accountId,
      client,
      grantId: subject.grantId,
      gty: "token_exchange",
      scope: params.scope,
    });
    token.aud = params.audience;
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: ACCESS_TOKEN,
      token_type: "Bearer",
      expires_in: token.expiration,
      scope: params.scope,
    };
  },
  ["subject_token", "subject_token_type", "requested_token_type", "audience", "resource", "scope"],
  ["audience", "resource"],
);

provider.on("server_error", (_, error) => console.error(error));
provider.listen(Number(PORT), "127.0.0.1", () => console.log("listening"));
