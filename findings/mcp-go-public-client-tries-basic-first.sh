#!/usr/bin/env bash
# Official Go MCP SDK 1.8: a public client presents its code twice, first with HTTP Basic and an empty password.
#
# A client with a metadata document, and a registered one without a secret, is public: it names itself by client_id
# in the form (RFC 6749 section 2.3.1 is for clients with a password). The SDK leaves the style to x/oauth2, which
# guesses: Basic first, without client_id in the form, and the form only after an error. It guesses anew at every
# sign-in. So a token endpoint whose metadata says that it takes only "none" meets Basic all the same, logs a failed
# client authentication for each sign-in that works, and loses the sign-in if a refused attempt uses up the code.
# The client ID is percent-encoded in the header; it is a URL here. With dynamic registration there is one request.
#
# Source: go-sdk auth/authorization_code.go (handleRegistration, selectTokenAuthMethod), x/oauth2 internal/token.go
# (RetrieveToken).
# Seen: the requests below, with the same code in both.
#
# Prints what the token endpoint gets in one sign-in of three kinds of public clients; fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOCACHE="$work/.cache" GOMODCACHE="$work/.modules" GOFLAGS=-modcacherw
cat > main.go <<'GO'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

const callback = "http://127.0.0.1:1/callback"

// Resource server and authorization server in one, for public clients only.
func serve(seen *[]string) *httptest.Server {
	var server *httptest.Server
	answer := func(w http.ResponseWriter, status int, body map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/.well-known/oauth-protected-resource"):
			answer(w, 200, map[string]any{
				"resource": server.URL + "/mcp", "authorization_servers": []string{server.URL},
			})
		case strings.HasPrefix(r.URL.Path, "/.well-known/"):
			answer(w, 200, map[string]any{
				"issuer":                                server.URL,
				"authorization_endpoint":                server.URL + "/authorize",
				"token_endpoint":                        server.URL + "/token",
				"registration_endpoint":                 server.URL + "/register",
				"response_types_supported":              []string{"code"},
				"code_challenge_methods_supported":      []string{"S256"},
				"token_endpoint_auth_methods_supported": []string{"none"},
				"client_id_metadata_document_supported": true,
			})
		case r.URL.Path == "/register":
			answer(w, 201, map[string]any{
				"client_id": "c-2", "redirect_uris": []string{callback}, "token_endpoint_auth_method": "none",
			})
		case r.URL.Path == "/token":
			r.ParseForm()
			form := fmt.Sprintf("code=%s client_id=%s", r.PostForm.Get("code"), r.PostForm.Get("client_id"))
			if user, password, ok := r.BasicAuth(); ok {
				*seen = append(*seen, fmt.Sprintf("Basic %q %q, form %s: 401", user, password, form))
				answer(w, 401, map[string]any{"error": "invalid_client"})
				return
			}
			*seen = append(*seen, fmt.Sprintf("form %s: 200", form))
			answer(w, 200, map[string]any{"access_token": "t", "token_type": "Bearer", "expires_in": 60})
		}
	}))
	return server
}

func signIn(config auth.AuthorizationCodeHandlerConfig) []string {
	var seen []string
	server := serve(&seen)
	defer server.Close()
	config.RedirectURL = callback
	config.AuthorizationCodeFetcher = func(
		_ context.Context, args *auth.AuthorizationArgs,
	) (*auth.AuthorizationResult, error) {
		opened, err := url.Parse(args.URL)
		return &auth.AuthorizationResult{Code: "one", State: opened.Query().Get("state")}, err
	}
	handler, err := auth.NewAuthorizationCodeHandler(&config)
	if err != nil {
		panic(err)
	}
	request, _ := http.NewRequest("POST", server.URL+"/mcp", nil)
	refused := &http.Response{StatusCode: 401, Header: http.Header{}, Body: http.NoBody}
	if err := handler.Authorize(context.Background(), request, refused); err != nil {
		panic(err)
	}
	return seen
}

func main() {
	found := [][]string{
		signIn(auth.AuthorizationCodeHandlerConfig{ClientIDMetadataDocumentConfig: &auth.ClientIDMetadataDocumentConfig{
			URL: "https://app.example/client.json",
		}}),
		signIn(auth.AuthorizationCodeHandlerConfig{PreregisteredClient: &oauthex.ClientCredentials{ClientID: "c-1"}}),
		signIn(auth.AuthorizationCodeHandlerConfig{
			DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
				Metadata: &oauthex.ClientRegistrationMetadata{RedirectURIs: []string{callback}},
			},
		}),
	}
	expected := [][]string{
		{
			`Basic "https%3A%2F%2Fapp.example%2Fclient.json" "", form code=one client_id=: 401`,
			`form code=one client_id=https://app.example/client.json: 200`,
		},
		{`Basic "c-1" "", form code=one client_id=: 401`, `form code=one client_id=c-1: 200`},
		{`form code=one client_id=c-2: 200`},
	}
	changed := false
	for i, name := range []string{"metadata document", "registered by hand", "dynamic registration"} {
		fmt.Println(name + ":\n  " + strings.Join(found[i], "\n  "))
		changed = changed || !slices.Equal(found[i], expected[i])
	}
	if changed {
		fmt.Println("this has changed")
		os.Exit(1)
	}
}
GO
{ go mod init show && go get github.com/modelcontextprotocol/go-sdk@v1.8.0 \
  golang.org/x/oauth2@v0.38.0 && go mod tidy; } 2> log || { cat log; exit 1; }
go list -m github.com/modelcontextprotocol/go-sdk golang.org/x/oauth2
go run .
