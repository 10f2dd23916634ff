#!/usr/bin/env bash
# go-spiffe 2.9, lestrrat-go/jwx 3.4 and Authlib 1.9: one key that they do not know takes the whole JWKS away.
#
# A verifier should pass over a key whose `kty` it does not understand (RFC 7517 section 5). These three refuse the
# document, so every JWT that the EC key signed fails with them from the day its issuer publishes a first ML-DSA key
# (kty AKP, RFC 9964) beside it; with go-spiffe also beside an X25519 key, which is for encryption only and an old type
# (RFC 8037). joserfc, PyJWT, python-jose and go-oidc go on. go-oidc uses the same go-jose as go-spiffe and reads the
# keys one by one. A new kind of key has to have a JWKS of its own while such clients are about.
#
# Source: go-jose jwk.go (JSONWebKeySet has no UnmarshalJSON), https://github.com/go-jose/go-jose/issues/276,
# go-spiffe bundle/jwtbundle/bundle.go (Parse); jwx jwk/set.go (UnmarshalJSON); authlib/jose/rfc7517/jwk.py
# (import_key_set), https://github.com/authlib/authlib/pull/914
# Seen: the lines below.
#
# Prints which verifier still takes a JWT of the EC key; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  joserfc==1.8.0 Authlib==1.9.10 "PyJWT[crypto]==2.15.1" python-jose==3.5.0
cat > show.py <<'PY'
import json
import sys
import time

import jwt as pyjwt
from authlib.jose import JsonWebKey
from authlib.jose import jwt as authlib_jwt
from jose import jwt as python_jose
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from joserfc.util import urlsafe_b64encode

key = ECKey.generate_key("P-256")
claims = {"iss": "https://as.example", "aud": ["mcp"], "sub": "spiffe://td.example/notes", "exp": int(time.time()) + 300}
token = jwt.encode({"alg": "ES256", "kid": "ec"}, claims, key)
parameters = key.as_dict(private=False)
ec = {name: parameters[name] for name in ("kty", "crv", "x", "y")} | {"kid": "ec", "use": "sig", "alg": "ES256"}


def b64(data):
    return urlsafe_b64encode(data).decode()


ml_dsa = {"kty": "AKP", "alg": "ML-DSA-44", "pub": b64(bytes(range(41)) * 32), "kid": "pq", "use": "sig"}
x25519 = {
    "kty": "OKP", "crv": "X25519", "x": b64(bytes(range(32))), "kid": "x", "use": "enc", "alg": "ECDH-ES",
}
sets = {"alone": [ec], "beside ML-DSA": [ec, ml_dsa], "beside X25519": [ec, x25519]}


def with_joserfc(jwks):
    jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["ES256"])


def with_pyjwt(jwks):
    pyjwt.decode(token, pyjwt.PyJWKSet.from_dict(jwks)["ec"], algorithms=["ES256"], audience="mcp")


def with_python_jose(jwks):
    python_jose.decode(token, jwks, algorithms=["ES256"], audience="mcp")


def with_authlib(jwks):
    authlib_jwt.decode(token, JsonWebKey.import_key_set(jwks))


for verify in (with_joserfc, with_pyjwt, with_python_jose, with_authlib):
    for name, keys in sets.items():
        try:
            verify({"keys": keys})
            found = "verified"
        except Exception as error:
            found = f"{type(error).__name__} {error}"
        print(f"{verify.__name__.removeprefix('with_')}, {name}: {found}")
with open("tries.json", "w") as file:
    json.dump({"token": token, "sets": [[name, {"keys": keys}] for name, keys in sets.items()]}, file)
PY
export GOCACHE="$work/.cache" GOMODCACHE="$work/.modules" GOFLAGS=-modcacherw
cat > main.go <<'GO'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

func main() {
	var tries struct {
		Token string
		Sets  [][2]json.RawMessage
	}
	text, err := os.ReadFile("tries.json")
	if err == nil {
		err = json.Unmarshal(text, &tries)
	}
	if err != nil {
		panic(err)
	}
	print := func(library string, name json.RawMessage, err error) {
		found := "verified"
		if err != nil {
			found = "error " + err.Error()
		}
		fmt.Printf("%s, %s: %s\n", library, name[1:len(name)-1], found)
	}
	ctx := context.Background()
	for _, set := range tries.Sets {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(set[1])
		}))
		keys := oidc.NewRemoteKeySet(ctx, server.URL)
		config := &oidc.Config{ClientID: "mcp", SupportedSigningAlgs: []string{"ES256"}}
		_, err := oidc.NewVerifier("https://as.example", keys, config).Verify(ctx, tries.Token)
		print("go-oidc", set[0], err)
		server.Close()
	}
	for _, set := range tries.Sets {
		keys, err := jwk.Parse(set[1])
		if err == nil {
			_, err = jwt.ParseString(tries.Token, jwt.WithKeySet(keys))
		}
		print("jwx", set[0], err)
	}
	for _, set := range tries.Sets {
		bundle, err := jwtbundle.Parse(spiffeid.RequireTrustDomainFromString("td.example"), set[1])
		if err == nil {
			_, err = jwtsvid.ParseAndValidate(tries.Token, bundle, []string{"mcp"})
		}
		print("go-spiffe", set[0], err)
	}
}
GO
{ go mod init show && go get github.com/coreos/go-oidc/v3@v3.21.0 github.com/lestrrat-go/jwx/v3@v3.4.0 \
  github.com/spiffe/go-spiffe/v2@v2.9.0 && go mod tidy; } 2> log || { cat log; exit 1; }
go build -o show .
{ venv/bin/python show.py 2>/dev/null && ./show; } | tee seen
cat > expected <<'TXT'
joserfc, alone: verified
joserfc, beside ML-DSA: verified
joserfc, beside X25519: verified
pyjwt, alone: verified
pyjwt, beside ML-DSA: verified
pyjwt, beside X25519: verified
python_jose, alone: verified
python_jose, beside ML-DSA: verified
python_jose, beside X25519: verified
authlib, alone: verified
authlib, beside ML-DSA: KeyError
authlib, beside X25519: verified
go-oidc, alone: verified
go-oidc, beside ML-DSA: verified
go-oidc, beside X25519: verified
jwx, alone: verified
jwx, beside ML-DSA: error
jwx, beside X25519: verified
go-spiffe, alone: verified
go-spiffe, beside ML-DSA: error
go-spiffe, beside X25519: error
TXT
sed -E 's/(: [A-Za-z]+) .*$/\1/' seen | diff - expected || { echo "this has changed"; exit 1; }
