-- A partner's people bear the partner's own id for them, each once there.
ALTER TABLE users ADD COLUMN external_id TEXT;
-- `partner` where the partner switched the account off: what an operator did, a partner does not undo.
ALTER TABLE users ADD COLUMN disabled_by TEXT;
CREATE UNIQUE INDEX users_by_external_id ON users (realm, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX users_of_partner ON users (realm, created_at, id) WHERE external_id IS NOT NULL;

-- How far each person of a partner got, from the request to the first use. `wish`: what was asked for, kept where it
-- failed, so that it can be tried again.
CREATE TABLE onboardings (
    id          TEXT   NOT NULL PRIMARY KEY,
    partner_id  TEXT   NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    external_id TEXT   NOT NULL,
    user_id     TEXT   REFERENCES users (id) ON DELETE CASCADE,
    state       TEXT   NOT NULL,
    reason      TEXT,
    wish        TEXT,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    UNIQUE (partner_id, external_id)
);
CREATE INDEX onboardings_by_creation ON onboardings (partner_id, created_at, id);
CREATE INDEX onboardings_by_state ON onboardings (partner_id, state, created_at, id);
CREATE INDEX onboardings_by_user ON onboardings (user_id);
CREATE INDEX onboardings_of_nobody ON onboardings (updated_at) WHERE user_id IS NULL;

-- Answers that a partner's backend may ask for again, sealed under a key that only the header's value yields.
CREATE TABLE idempotency (
    partner_id   TEXT   NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    key_hash     BYTEA  NOT NULL,
    request_hash BYTEA  NOT NULL,
    sealed       TEXT   NOT NULL,
    expires_at   BIGINT NOT NULL,
    PRIMARY KEY (partner_id, key_hash)
);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- What must leave the process, written in the transaction that it belongs to. `due_at` is also the lease of whoever
-- is at it. Rows stay for a while after their end, for the caps and for people.
CREATE TABLE outbox (
    id            TEXT   NOT NULL PRIMARY KEY,
    kind          TEXT   NOT NULL,
    recipient     TEXT   NOT NULL,
    partner_id    TEXT,
    onboarding_id TEXT   REFERENCES onboardings (id) ON DELETE SET NULL,
    payload       TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    attempts      BIGINT NOT NULL,
    due_at        BIGINT NOT NULL,
    last_error    TEXT,
    created_at    BIGINT NOT NULL,
    finished_at   BIGINT
);
CREATE INDEX outbox_by_due ON outbox (state, due_at);
CREATE INDEX outbox_by_recipient ON outbox (recipient, finished_at);
CREATE INDEX outbox_by_partner ON outbox (partner_id, finished_at);
CREATE INDEX outbox_by_onboarding ON outbox (onboarding_id);
CREATE INDEX outbox_by_end ON outbox (finished_at);

-- Links that are good once, by the hash of their secret.
CREATE TABLE links (
    token_hash BYTEA  NOT NULL PRIMARY KEY,
    kind       TEXT   NOT NULL,
    user_id    TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT
);
CREATE INDEX links_by_expiry ON links (expires_at);
CREATE INDEX links_by_user ON links (user_id);

-- Many registrations at once. `due_at` is the lease of the process that is at it.
CREATE TABLE imports (
    id         TEXT   NOT NULL PRIMARY KEY,
    partner_id TEXT   NOT NULL REFERENCES clients (id) ON DELETE CASCADE,
    state      TEXT   NOT NULL,
    total      BIGINT NOT NULL,
    reason     TEXT,
    due_at     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX imports_by_due ON imports (state, due_at);
CREATE INDEX imports_by_partner ON imports (partner_id);
CREATE INDEX imports_by_age ON imports (updated_at);

-- `wish` leaves once the line is done; then there is a person, or what stood in the way.
CREATE TABLE import_lines (
    import_id TEXT   NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
    line      BIGINT NOT NULL,
    wish      TEXT,
    user_id   TEXT,
    error     TEXT,
    PRIMARY KEY (import_id, line)
);
