-- What the device API keeps of a player beside the account.
CREATE TABLE players (
    user_id               TEXT   NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    pseudo                TEXT   NOT NULL,
    total_games_completed BIGINT NOT NULL
);
