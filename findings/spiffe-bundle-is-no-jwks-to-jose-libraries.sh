#!/usr/bin/env bash
# joserfc 1.8, Authlib 1.9 and jose (npm) 6.2 cannot verify a JWT-SVID with the JWKS that SPIFFE publishes for it.
#
# A SPIFFE bundle is a JWKS whose keys say use=jwt-svid or use=x509-svid: the SPIFFE standard (Trust Domain and
# Bundle, 4.2.2) demands one of the two, and RFC 7517 section 4.2 permits other values than sig and enc. joserfc
# refuses the whole set at import, so a JWKS that has one such key beside ordinary ones loses them all. Authlib
# imports it and refuses at the signature. jose finds no key that applies. PyJWT does not look at `use`. Rewriting
# `use` of the jwt-svid keys to sig before the import makes all four verify.
#
# Source: joserfc/registry.py (use), authlib/jose/rfc7517/base_key.py (check_key_op), jose dist/webapi/jwks/local.js.
# A Rust library had it: https://github.com/maxlambrecht/rust-spiffe/issues/19
# Seen: the three lines of each library below.
#
# Prints what each library makes of one JWT-SVID with three JWKSs; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check joserfc==1.8.0 Authlib==1.9.10 "PyJWT[crypto]==2.15.1"
echo '{"private": true, "type": "module"}' > package.json
npm install --silent --no-audit --no-fund --ignore-scripts jose@6.2.18
cat > show.py <<'PY'
import json
import time
import warnings

warnings.simplefilter("ignore")
import jwt as pyjwt
from authlib.jose import JsonWebKey
from authlib.jose import jwt as authlib_jwt
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

svid_key, other_key = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
svid = jwt.encode(
    {"alg": "ES256", "kid": "svid"},
    {"sub": "spiffe://td.example/notes", "aud": ["mcp"], "exp": int(time.time()) + 300},
    svid_key,
)
plain = jwt.encode({"alg": "ES256", "kid": "other"}, {"aud": ["mcp"]}, other_key)


def public(key, kid, **more):
    parameters = key.as_dict(private=False)
    return {name: parameters[name] for name in ("kty", "crv", "x", "y")} | {"kid": kid} | more


svid_in_bundle = public(svid_key, "svid", use="jwt-svid")
other = public(other_key, "other", use="sig")
tries = {
    "use=jwt-svid": (svid, [svid_in_bundle]),
    "use=sig": (svid, [public(svid_key, "svid", use="sig")]),
    "use=sig, beside jwt-svid": (plain, [other, svid_in_bundle]),
}


def with_joserfc(token, jwks):
    jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["ES256"])


def with_authlib(token, jwks):
    authlib_jwt.decode(token, JsonWebKey.import_key_set(jwks))


def with_pyjwt(token, jwks):
    key = pyjwt.PyJWKSet.from_dict(jwks)[pyjwt.get_unverified_header(token)["kid"]]
    pyjwt.decode(token, key, algorithms=["ES256"], audience="mcp")


for verify in (with_joserfc, with_authlib, with_pyjwt):
    for name, (token, keys) in tries.items():
        try:
            verify(token, {"keys": keys})
            found = "verified"
        except Exception as error:
            found = f"{type(error).__name__} {error}"
        print(f"{verify.__name__.removeprefix('with_')}, {name}: {found}")
with open("tries.json", "w") as file:
    json.dump(tries, file)
PY
cat > show.js <<'JS'
import { readFileSync } from "node:fs";

import { createLocalJWKSet, jwtVerify } from "jose";

for (const [name, [token, keys]] of Object.entries(JSON.parse(readFileSync("tries.json", "utf8")))) {
  const found = await jwtVerify(token, createLocalJWKSet({ keys })).then(
    () => "verified",
    (error) => `${error.code} ${error.message}`,
  );
  console.log(`jose, ${name}: ${found}`);
}
JS
{ venv/bin/python show.py 2>/dev/null && node show.js; } | tee seen
cat > expected <<'TXT'
joserfc, use=jwt-svid: KeyParameterError
joserfc, use=sig: verified
joserfc, use=sig, beside jwt-svid: KeyParameterError
authlib, use=jwt-svid: InvalidUseError
authlib, use=sig: verified
authlib, use=sig, beside jwt-svid: verified
pyjwt, use=jwt-svid: verified
pyjwt, use=sig: verified
pyjwt, use=sig, beside jwt-svid: verified
jose, use=jwt-svid: ERR_JWKS_NO_MATCHING_KEY
jose, use=sig: verified
jose, use=sig, beside jwt-svid: verified
TXT
sed -E 's/(: [A-Za-z_]+) .*$/\1/' seen | diff - expected || { echo "this has changed"; exit 1; }
