-- What people may do in apps, as flat lists (JSON arrays of strings).
ALTER TABLE users ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';
ALTER TABLE users ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';

-- API keys: of a person (`uk`) or of a partner (`pk`). The key itself is not here, only its authentication code under
-- the pepper of that version. Rows stay after their end, so that people see what a key was.
CREATE TABLE api_keys (
    kid            TEXT   NOT NULL PRIMARY KEY,
    kind           TEXT   NOT NULL,
    user_id        TEXT   REFERENCES users (id) ON DELETE CASCADE,
    client_id      TEXT   REFERENCES clients (id) ON DELETE CASCADE,
    name           TEXT   NOT NULL,
    scopes         TEXT   NOT NULL,
    audiences      TEXT   NOT NULL,
    allowed_cidrs  TEXT   NOT NULL,
    exchange_only  BIGINT NOT NULL,
    mac            BYTEA  NOT NULL,
    pepper         BIGINT NOT NULL,
    predecessor    TEXT,
    created_at     BIGINT NOT NULL,
    lifetime       BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    revoked_at     BIGINT,
    revoked_reason TEXT
);
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);
CREATE INDEX api_keys_by_client ON api_keys (client_id, created_at);
CREATE INDEX api_keys_by_predecessor ON api_keys (predecessor);
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at);
CREATE INDEX api_keys_by_revocation ON api_keys (revoked_at);

-- When a key was last used, apart from the key: small rows that are written many at a time.
CREATE TABLE api_key_uses (
    kid     TEXT   NOT NULL PRIMARY KEY REFERENCES api_keys (kid) ON DELETE CASCADE,
    used_at BIGINT NOT NULL,
    used_ip TEXT
);

-- What a key opened ends with it. `facade`: by a sign-in call where no client authenticates. `reach`: how far a session
-- from a key reaches, as JSON.
ALTER TABLE grants ADD COLUMN api_key_id TEXT;
ALTER TABLE grants ADD COLUMN facade BIGINT NOT NULL DEFAULT 0;
CREATE INDEX grants_by_api_key ON grants (api_key_id);
ALTER TABLE sessions ADD COLUMN api_key_id TEXT;
ALTER TABLE sessions ADD COLUMN reach TEXT;
CREATE INDEX sessions_by_api_key ON sessions (api_key_id);
