-- One text for SQLite and PostgreSQL: TEXT, BIGINT (epoch milliseconds, flags, numbers) and BYTEA only.

-- Small facts about this database: which master key seals it, the sealed server key.
CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One counter, moved by every administrative change; each process polls it and drops its caches.
CREATE TABLE changes (
    id      BIGINT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);
INSERT INTO changes (id, version) VALUES (1, 0);

-- Every `sub` that was ever given, to a user or a client, so that none is given twice. Rows stay.
CREATE TABLE subjects (
    id   TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL
);

CREATE TABLE users (
    id             TEXT   NOT NULL PRIMARY KEY REFERENCES subjects (id),
    realm          TEXT   NOT NULL,
    username       TEXT,
    email          TEXT,
    email_verified BIGINT NOT NULL,
    claims         TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    disabled_at    BIGINT
);
CREATE INDEX users_by_creation ON users (created_at, id);

-- What one may sign in with. The primary key decides who was first.
CREATE TABLE identifiers (
    realm   TEXT NOT NULL,
    kind    TEXT NOT NULL,
    value   TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (realm, kind, value)
);
CREATE INDEX identifiers_by_user ON identifiers (user_id);

CREATE TABLE passwords (
    user_id    TEXT   NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    hash       TEXT   NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE clients (
    id          TEXT   NOT NULL PRIMARY KEY REFERENCES subjects (id),
    metadata    TEXT   NOT NULL,
    secrets     TEXT   NOT NULL,
    declared    BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    disabled_at BIGINT
);

CREATE TABLE sessions (
    id           TEXT   NOT NULL PRIMARY KEY,
    token_hash   BYTEA  NOT NULL UNIQUE,
    user_id      TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    auth_time    BIGINT NOT NULL,
    acr          TEXT   NOT NULL,
    amr          TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE consents (
    user_id   TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id TEXT   NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    allowed   TEXT   NOT NULL,
    given_at  BIGINT NOT NULL,
    PRIMARY KEY (user_id, client_id)
);

-- One row for the whole life of an authorization: its code, its refresh tokens, its revocation.
CREATE TABLE grants (
    id                 TEXT   NOT NULL PRIMARY KEY,
    client_id          TEXT   NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    user_id            TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id         TEXT,
    scope              TEXT   NOT NULL,
    resources          TEXT   NOT NULL,
    claims             TEXT   NOT NULL,
    auth_time          BIGINT NOT NULL,
    acr                TEXT   NOT NULL,
    amr                TEXT   NOT NULL,
    offline            BIGINT NOT NULL,
    nonce              TEXT,
    redirect_uri       TEXT,
    code_challenge     TEXT,
    code_hash          BYTEA  NOT NULL,
    code_expires_at    BIGINT NOT NULL,
    redeemed_at        BIGINT,
    refresh_seed       BYTEA  NOT NULL,
    refresh_generation BIGINT NOT NULL,
    refresh_rotated_at BIGINT,
    refresh_used_at    BIGINT,
    refresh_expires_at BIGINT,
    revoked_at         BIGINT,
    revoked_reason     TEXT,
    created_at         BIGINT NOT NULL,
    expires_at         BIGINT NOT NULL
);
CREATE INDEX grants_by_user ON grants (user_id);
CREATE INDEX grants_by_session ON grants (session_id);
CREATE INDEX grants_by_client ON grants (client_id);
CREATE INDEX grants_by_expiry ON grants (expires_at);

CREATE TABLE signing_keys (
    kid            TEXT   NOT NULL PRIMARY KEY,
    alg            TEXT   NOT NULL,
    serial         BIGINT NOT NULL,
    public_jwk     TEXT   NOT NULL,
    sealed_private TEXT   NOT NULL,
    created_at     BIGINT NOT NULL,
    active_from    BIGINT NOT NULL,
    retired_at     BIGINT,
    UNIQUE (alg, serial)
);

-- Requests too large for a URL, by the id in that URL.
CREATE TABLE pushed_requests (
    id         TEXT   NOT NULL PRIMARY KEY,
    sealed     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX pushed_requests_by_expiry ON pushed_requests (expires_at);

-- Identifiers that must not count again until they expire: the `jti` of revoked access tokens.
CREATE TABLE used_ids (
    kind       TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX used_ids_by_expiry ON used_ids (expires_at);

-- Times of recent attempts by bucket, 8 bytes each, oldest first.
CREATE TABLE limits (
    bucket     TEXT   NOT NULL PRIMARY KEY,
    attempts   BYTEA  NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX limits_by_expiry ON limits (expires_at);

-- The audit trail. References are kept as they were, so no foreign keys.
CREATE TABLE events (
    id        TEXT   NOT NULL PRIMARY KEY,
    at        BIGINT NOT NULL,
    kind      TEXT   NOT NULL,
    user_id   TEXT,
    client_id TEXT,
    address   TEXT,
    detail    TEXT   NOT NULL
);
CREATE INDEX events_by_time ON events (at, id);
CREATE INDEX events_by_user ON events (user_id, at);
