BEGIN TRANSACTION;
CREATE TABLE browser_sessions (
    handle_hash   BYTEA PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES users (user_id),
    signed_in_at  BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
INSERT INTO "browser_sessions" VALUES(X'539E8F838E20A38A2CD92520A8ABE01ED5EE0F426B55F0AE16F0366D9EE36210','Bd64o7DdriSRxLNUSUuiIKOelIqGR5WB4EmDUv6jPq0',1795911091,1795939891);
INSERT INTO "browser_sessions" VALUES(X'1F308A873AA010E653F9585EFED4B153B50D980597DF0095209D5127DE333219','Bd64o7DdriSRxLNUSUuiIKOelIqGR5WB4EmDUv6jPq0',1795911092,1795939892);
INSERT INTO "browser_sessions" VALUES(X'22708CF85941397A5F1B9DEE7BE5315119E8B538E32F56879E86124F44D654A1','bTvsowvXVVpLTpzAacPIRzD96a_nEeN4iEn5ppC4EEQ',1795911092,1795939892);
INSERT INTO "browser_sessions" VALUES(X'923DE300E988C4D29215270FA5D34E45DEB3FA3B1AED8C197BE08D12EFF19384','Pj5oJ_ttkiHf87ZI3zkt1-I_hNiwxceja27qi8BqEBA',1795911092,1795939892);
CREATE TABLE clients (
    client_id    TEXT PRIMARY KEY,
    metadata     TEXT NOT NULL,
    secret_hash  BYTEA,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT              
);
INSERT INTO "clients" VALUES('tw-NQuj72CXCqC3c7EeSi8ItDad2jTdVUGpj6_7Wk0_e7Q','{"client_id": "tw-NQuj72CXCqC3c7EeSi8ItDad2jTdVUGpj6_7Wk0_e7Q", "name": "Test client", "redirect_uris": ["http://127.0.0.1:9999/callback"], "auth_methods": ["none"], "grant_types": ["authorization_code", "refresh_token"], "application_type": "web", "jwks": null, "jwks_uri": null}',NULL,1795911091,NULL);
INSERT INTO "clients" VALUES('tw-Pz3K9E5TiQJeh6pWniVxsYugiHBQFjNGVNM5nFpyr_M','{"client_id": "tw-Pz3K9E5TiQJeh6pWniVxsYugiHBQFjNGVNM5nFpyr_M", "name": "Test client", "redirect_uris": ["http://127.0.0.1:9999/callback"], "auth_methods": ["none"], "grant_types": ["authorization_code", "refresh_token"], "application_type": "web", "jwks": null, "jwks_uri": null}',NULL,1795911091,NULL);
INSERT INTO "clients" VALUES('tw-lKeL6RQjLG6arLvdg4UW46Dy0PfIwyK0MfCQlXj3aZk','{"client_id": "tw-lKeL6RQjLG6arLvdg4UW46Dy0PfIwyK0MfCQlXj3aZk", "name": "Test client", "redirect_uris": ["http://127.0.0.1:9999/callback"], "auth_methods": ["none"], "grant_types": ["authorization_code", "refresh_token"], "application_type": "web", "jwks": null, "jwks_uri": null}',NULL,1795911092,NULL);
INSERT INTO "clients" VALUES('tw-rPTMph7zcIwYizFLXGMBIJzByctydLUPz_SXwkXu1q0','{"client_id": "tw-rPTMph7zcIwYizFLXGMBIJzByctydLUPz_SXwkXu1q0", "name": "Test client", "redirect_uris": ["http://127.0.0.1:9999/callback"], "auth_methods": ["none"], "grant_types": ["authorization_code", "refresh_token"], "application_type": "web", "jwks": null, "jwks_uri": null}',NULL,1795911092,NULL);
CREATE TABLE codes (
    code_hash       BYTEA PRIMARY KEY,
    tsid            TEXT NOT NULL REFERENCES sessions (tsid) ON DELETE CASCADE,
    client_id       TEXT NOT NULL,
    redirect_uri    TEXT NOT NULL,
    code_challenge  TEXT NOT NULL,
    resource        TEXT NOT NULL,
    nonce           TEXT,
    redeemed_at     BIGINT,
    expires_at      BIGINT NOT NULL
);
INSERT INTO "codes" VALUES(X'8DA96219F842C22B864CA599C9302CB5688B1944547B513864BD5AEAE765EC11','Sz9zoYJUMPANHKevrsmjX8sEK2JDWaq7HIYLZjlesB4','tw-NQuj72CXCqC3c7EeSi8ItDad2jTdVUGpj6_7Wk0_e7Q','http://127.0.0.1:9999/callback','KfzmXwBvNr-ypVoyOAu-y9Obq41vbBbQGtB-N_gzq5I','https://notes.example.com/mcp',NULL,1795911091,1795911151);
INSERT INTO "codes" VALUES(X'191D8A1B950527436918D9B31230BB7C65FA771B9A6B63B5CE850CE4E96904EF','AYbWvoXuUf9gYHpWzYGsdrtsrs1j2dqQFV5xcJdfbIk','tw-Pz3K9E5TiQJeh6pWniVxsYugiHBQFjNGVNM5nFpyr_M','http://127.0.0.1:9999/callback','dtdPsu7I0MRDgGirCnWBxluJFpUY7ZSSSd6s23ZC84A','https://notes.example.com/mcp',NULL,1795911092,1795911152);
INSERT INTO "codes" VALUES(X'BA640E3B3D842311883033FA6C4F8733C99A554138FBD05478DD9F0EA9C8544B','mEn7TkUa1L4XKC2RpQ3jqYeY1-Y80pnFQp0Tizze3us','tw-lKeL6RQjLG6arLvdg4UW46Dy0PfIwyK0MfCQlXj3aZk','http://127.0.0.1:9999/callback','MWs-UcPz8MbENYpWqJRiFd8uAxdcYj36yfmdmnYvHLI','https://notes.example.com/mcp',NULL,1795911092,1795911152);
INSERT INTO "codes" VALUES(X'28CF3A3C3FBE133FC52DD9B5A358864002743F9BDCADD9891C0711CBA0366948','WPQa3XQROpFCTWQmBpOXmsxgD2TXBPQez747KemJC8w','tw-rPTMph7zcIwYizFLXGMBIJzByctydLUPz_SXwkXu1q0','http://127.0.0.1:9999/callback','2IQxGYnAGiSiiTWC8DbA_OEcKVAstkErz9j_aQGcWVk','https://tasks.example.com/mcp',NULL,1795911092,1795911152);
CREATE TABLE connections (
    user_id             TEXT NOT NULL REFERENCES users (user_id),
    owner_namespace     TEXT NOT NULL,
    owner_name          TEXT NOT NULL,
    upstream            TEXT NOT NULL,
    generation          BIGINT NOT NULL,
    upstream_issuer     TEXT NOT NULL,
    upstream_subject    TEXT NOT NULL,
    asked_scope         TEXT NOT NULL,
    sealed_tokens       BYTEA NOT NULL,
    sealed_under        TEXT NOT NULL,
    dead                BIGINT NOT NULL DEFAULT 0,
    refresh_claim       TEXT,            
    refresh_claimed_at  BIGINT,
    first_claimed_at    BIGINT,          
    PRIMARY KEY (user_id, owner_namespace, owner_name, upstream)
);
INSERT INTO "connections" VALUES('Bd64o7DdriSRxLNUSUuiIKOelIqGR5WB4EmDUv6jPq0','mcp-servers','notes','acme',2,'http://acme.invalid','user-1001','openid offline_access',X'01026B312C75D4D90DFCDBAD63B83910B60B045E7D336A787E82F591B2CE610C658920932D8E54FA65CDD84BCD443B68CA22FD0B285D1F8556E913B25F2374DEA6DAE3FD7E15E107BD0785ED788B676939F5EE43D535E49B086BA8B50717AA575509061C8F209A1BE8934CB6CCEA6504E6378C2E17B601DC825C4D3C98BB9D43351893BBDFC6DC921B5554D50DE4056406CE69238D3764F8783C5530FC918BB2B26D74716A7CDBD316EB8975AE4CE7607E8087D7B3155EA986175842D0D1E77D3C105CEF769642A7F8E414DE63FB170A70A6CB1CF1AEE8671A6B7C04D6C2B9E725EC64604647001804AC68BA5492CEB581125C719EB4E51200B392FE8DCC178752CB7FA677EDCF6E397AADB439869CE8ED6F92F1A0E17D4C86ACB25539B3B99EA010175A50A48F4E8C','k1',0,NULL,NULL,NULL);
INSERT INTO "connections" VALUES('bTvsowvXVVpLTpzAacPIRzD96a_nEeN4iEn5ppC4EEQ','mcp-servers','notes','acme',1,'http://acme.invalid','user-1002','openid offline_access',X'01026B3142C4662E86CCDEBE986E167009C3FD385179CC8144C8AB3F5DD8F196490F9F9343F293294AFFFB63A8A2538FCCFE8550D7D099F02C37E85D84EF642BA248487DC1922D8E57CB283DAD72AEC61EEE51E482FE135ECA94B26EDFE1F969CEE64158D026F42B210CEDC7D05C941C17F4BE81A420773AE7E85F40BBEF8280403FCA876C81D589049BB0C99B0AF475F94A924A8F99C27977A64D214601CC97188A04AF5ACF3111B653B0D3D920AA947EDCCC2B9C275990656C8C2C4680FA7FF09996EA496B788F2787399C7B8D681E696B2F2FC7AC6BE1A91291F90349F84FE2D98B4B3478DF8582C6ABFFC2E049DD483DEDCEC3CC9BBD33425FC63C2F45E00F2475FC4465D120735C24C3CE5F0E6B4AC21793328133C0D7CA6F8687AE0C3A7418C989AAB3013857','k1',0,NULL,NULL,NULL);
INSERT INTO "connections" VALUES('Pj5oJ_ttkiHf87ZI3zkt1-I_hNiwxceja27qi8BqEBA','mcp-servers','tasks','hub',1,'http://hub.invalid','user-1001','openid',X'01026B31F498028E5F8B29C789E6736ECF58F3C07C56ABDEE6183E2AD2EA56A67FA78574FE39C447D102FAD7E85BA1D75208F10B8F27AD0F621E340A3EF20E3990298C941FCE259E425646D6221D8D2D72429F2CD14B3A485EC96E507946E48AE54A2EB0ADF44CE565DBD12819B6E79A5E7C396A623394AC3D9D88088424F4AE4D91E54D5FC6D367148B71ACA72FC990F1767B0A134FB5BA6113A79EC23E39F0DAAA37AD2F3C8273039B0942EDCE9BA76A2C0A231E709561561B819D9BB79D7319DFDDA01536A8BEC634A5993732F04ACB972280DD1F2BEAAC4B0EFD85183B08969A739F429FD434B72A45C0935E36FE3875782EF2A229E11007DBF349206EFD727ADA2746F9AFB046BEF629476539E4F1DFFCA6898CC708A01B','k1',0,NULL,NULL,NULL);
CREATE TABLE consents (
    consent_hash  BYTEA PRIMARY KEY,    
    user_id       TEXT NOT NULL REFERENCES users (user_id),
    client_id     TEXT NOT NULL,
    resource      TEXT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE TABLE former_owners (
    resource         TEXT NOT NULL,
    owner_namespace  TEXT NOT NULL,
    owner_name       TEXT NOT NULL,
    missing_since    BIGINT NOT NULL,
    PRIMARY KEY (resource, owner_namespace, owner_name)
);
CREATE TABLE key_checks (
    key_id       TEXT PRIMARY KEY,
    fingerprint  BYTEA NOT NULL
);
INSERT INTO "key_checks" VALUES('k1',X'E0EFB007FEBB5CE0B69A1222C31E07271EB45D1792B9D8C077F565FBF6D508EF');
CREATE TABLE leases (
    name        TEXT PRIMARY KEY,
    holder      TEXT NOT NULL,
    expires_at  BIGINT NOT NULL
);
INSERT INTO "leases" VALUES('housekeeping','hEet8gYKFXFDz8TAXLQCEjcvrwjqa5TcHhCn8gDVzvE',1795911166);
CREATE TABLE refresh_tokens (
    token_hash        BYTEA PRIMARY KEY,
    tsid              TEXT NOT NULL REFERENCES sessions (tsid) ON DELETE CASCADE,
    used_at           BIGINT,
    successor_hash    BYTEA,
    sealed_successor  BYTEA,        
    sealed_under      TEXT,
    expires_at        BIGINT NOT NULL
);
INSERT INTO "refresh_tokens" VALUES(X'FB4E20D1748BCD0BA7EE17F0C3370C35F957A1C8E9337A5544E69B65372E82DE','Sz9zoYJUMPANHKevrsmjX8sEK2JDWaq7HIYLZjlesB4',NULL,NULL,NULL,NULL,1798503091);
INSERT INTO "refresh_tokens" VALUES(X'45C0B509AB38AE58C709FF6057C4DEB08BE01A7E5040D4D7E2BF4C3A4493ED89','AYbWvoXuUf9gYHpWzYGsdrtsrs1j2dqQFV5xcJdfbIk',1795911092,X'23235A2DB14EC518ABCA55C2C8C40238B60AE8158840C3A304E4B1DAA88E2EC0',X'01026B31F3638EA6FBCA2E1D83BF149C3D8324DF57AAE60EB9F6411ED6C87D61A6042F3EEB52D2705EE3331EE08E3695C85B7678CEBC42B77043DA547F0BD0CE659CA29851000AC2D6C88C22151D8C773598FFFCE04E3F08FBEF494A94D9A10AA106DF931735242BCC598ADAE227C2D1D02A66BD3256B9FFF612B0EE4021A9AD6D5C0561FC5416','k1',1798503092);
INSERT INTO "refresh_tokens" VALUES(X'AFE03946CED3541E67F0026AAF460402252142E0DB0670E981C0EE4C0A1CAABD','mEn7TkUa1L4XKC2RpQ3jqYeY1-Y80pnFQp0Tizze3us',NULL,NULL,NULL,NULL,1798503092);
INSERT INTO "refresh_tokens" VALUES(X'0F8A4E3B6BB5F5D78C6EF0EA91B32132EF74588A4937964F3925537741B1DC6E','WPQa3XQROpFCTWQmBpOXmsxgD2TXBPQez747KemJC8w',NULL,NULL,NULL,NULL,1798503092);
INSERT INTO "refresh_tokens" VALUES(X'23235A2DB14EC518ABCA55C2C8C40238B60AE8158840C3A304E4B1DAA88E2EC0','AYbWvoXuUf9gYHpWzYGsdrtsrs1j2dqQFV5xcJdfbIk',NULL,NULL,NULL,NULL,1798503092);
CREATE TABLE schema_version (version BIGINT NOT NULL);
INSERT INTO "schema_version" VALUES(2);
CREATE TABLE sessions (
    tsid             TEXT PRIMARY KEY,
    user_id          TEXT NOT NULL REFERENCES users (user_id),
    client_id        TEXT NOT NULL,
    resource         TEXT NOT NULL,
    owner_namespace  TEXT NOT NULL,
    owner_name       TEXT NOT NULL,
    scope            TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    signed_in_at     BIGINT NOT NULL,
    ended_at         BIGINT
);
INSERT INTO "sessions" VALUES('Sz9zoYJUMPANHKevrsmjX8sEK2JDWaq7HIYLZjlesB4','Bd64o7DdriSRxLNUSUuiIKOelIqGR5WB4EmDUv6jPq0','tw-NQuj72CXCqC3c7EeSi8ItDad2jTdVUGpj6_7Wk0_e7Q','https://notes.example.com/mcp','mcp-servers','notes','mcp offline_access',1795911091,1798503091,1795911091,NULL);
INSERT INTO "sessions" VALUES('AYbWvoXuUf9gYHpWzYGsdrtsrs1j2dqQFV5xcJdfbIk','Bd64o7DdriSRxLNUSUuiIKOelIqGR5WB4EmDUv6jPq0','tw-Pz3K9E5TiQJeh6pWniVxsYugiHBQFjNGVNM5nFpyr_M','https://notes.example.com/mcp','mcp-servers','notes','mcp offline_access',1795911092,1798503092,1795911092,NULL);
INSERT INTO "sessions" VALUES('mEn7TkUa1L4XKC2RpQ3jqYeY1-Y80pnFQp0Tizze3us','bTvsowvXVVpLTpzAacPIRzD96a_nEeN4iEn5ppC4EEQ','tw-lKeL6RQjLG6arLvdg4UW46Dy0PfIwyK0MfCQlXj3aZk','https://notes.example.com/mcp','mcp-servers','notes','mcp offline_access',1795911092,1798503092,1795911092,NULL);
INSERT INTO "sessions" VALUES('WPQa3XQROpFCTWQmBpOXmsxgD2TXBPQez747KemJC8w','Pj5oJ_ttkiHf87ZI3zkt1-I_hNiwxceja27qi8BqEBA','tw-rPTMph7zcIwYizFLXGMBIJzByctydLUPz_SXwkXu1q0','https://tasks.example.com/mcp','mcp-servers','tasks','mcp',1795911092,1798503092,1795911092,NULL);
CREATE TABLE transactions (
    handle_hash         BYTEA PRIMARY KEY,
    stage               TEXT NOT NULL,
    browser_hash        BYTEA NOT NULL,
    upstream            TEXT NOT NULL,
    sealed_transaction  BYTEA NOT NULL,
    sealed_under        TEXT NOT NULL,
    expires_at          BIGINT NOT NULL
);
CREATE TABLE used_assertions (
    assertion_hash  BYTEA PRIMARY KEY,   
    expires_at      BIGINT NOT NULL
);
CREATE TABLE users (
    user_id          TEXT PRIMARY KEY,
    upstream_issuer  TEXT NOT NULL,
    subject          TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    UNIQUE (upstream_issuer, subject)
);
INSERT INTO "users" VALUES('Bd64o7DdriSRxLNUSUuiIKOelIqGR5WB4EmDUv6jPq0','http://acme.invalid','user-1001',1795911091);
INSERT INTO "users" VALUES('bTvsowvXVVpLTpzAacPIRzD96a_nEeN4iEn5ppC4EEQ','http://acme.invalid','user-1002',1795911092);
INSERT INTO "users" VALUES('Pj5oJ_ttkiHf87ZI3zkt1-I_hNiwxceja27qi8BqEBA','http://hub.invalid','user-1001',1795911092);
CREATE INDEX clients_by_expiry ON clients (expires_at);
CREATE INDEX used_assertions_by_expiry ON used_assertions (expires_at);
CREATE INDEX browser_sessions_by_expiry ON browser_sessions (expires_at);
CREATE INDEX consents_by_user ON consents (user_id, client_id);
CREATE INDEX consents_by_expiry ON consents (expires_at);
CREATE INDEX transactions_by_key ON transactions (sealed_under);
CREATE INDEX transactions_by_expiry ON transactions (expires_at);
CREATE INDEX sessions_by_holder ON sessions (user_id, owner_namespace, owner_name);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX codes_by_expiry ON codes (expires_at);
CREATE INDEX codes_by_session ON codes (tsid);
CREATE INDEX refresh_tokens_by_key ON refresh_tokens (sealed_under);
CREATE INDEX refresh_tokens_by_successor ON refresh_tokens (successor_hash);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (tsid);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);
CREATE INDEX connections_by_key ON connections (sealed_under);
CREATE INDEX sessions_of_owner ON sessions (resource, owner_namespace, owner_name)
    WHERE ended_at IS NULL;
COMMIT;
